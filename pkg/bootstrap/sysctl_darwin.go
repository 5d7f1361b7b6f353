package bootstrap

import "golang.org/x/sys/unix"

func sysctl(name string) (uint32, error) { return unix.SysctlUint32(name) }
