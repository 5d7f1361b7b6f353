//go:build unix

package sandbox

import "syscall"

// noFollow is the flag by which a link is not opened.
const noFollow = syscall.O_NOFOLLOW
