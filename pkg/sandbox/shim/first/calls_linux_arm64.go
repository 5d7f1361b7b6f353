package first

import "syscall"

// sysNewfstatat has another name on each architecture.
const sysNewfstatat = syscall.SYS_FSTATAT
