//go:build unix

package cmd

import "syscall"

const nonBlocking = syscall.O_NONBLOCK
