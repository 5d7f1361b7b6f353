package first

import "syscall"

// Calls that have other names or numbers on each architecture.
const (
	sysNewfstatat = syscall.SYS_FSTATAT
	sysGetcpu     = syscall.SYS_GETCPU
)
