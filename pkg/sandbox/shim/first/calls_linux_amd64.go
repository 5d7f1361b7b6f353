package first

import "syscall"

// Calls that have other names or numbers on each architecture.
const (
	sysNewfstatat = syscall.SYS_NEWFSTATAT
	sysGetcpu     = 309
)
