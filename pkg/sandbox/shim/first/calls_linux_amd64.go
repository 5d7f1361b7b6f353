package first

import "syscall"

// Calls that have another name or number on each architecture.
const (
	sysNewfstatat = syscall.SYS_NEWFSTATAT
	sysGetcpu     = 309
)
