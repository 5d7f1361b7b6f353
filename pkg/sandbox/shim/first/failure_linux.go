package first

import (
	"syscall"
	"unsafe"
)

// Failure says what a sandbox failed in: At is from a Message, and the script the one that the parent sent, if it did.
func Failure(at int, script *Script) string {
	switch {
	case at == AtUserNamespace:
		return "user namespace"
	case at == AtIDs:
		return "user namespace: ids"
	case at == AtNamespaces:
		return "namespaces"
	case at == AtFork:
		return "first process"
	case at < AtStep:
		return "preparation"
	case at < AtStep+NextScript:
		script, _ = general(make([]byte, unsafe.Sizeof(generally))) // it was made before
		at -= AtStep
	default:
		at -= AtStep + NextScript
	}
	if script == nil {
		return "script"
	}
	topic, number := script.About(at)
	if name, ok := callName(number); ok {
		return topic + ": " + name
	}
	return topic
}

// callName is the name of a system call whose failure its topic does not explain.
func callName(number uintptr) (string, bool) {
	switch number {
	case sysFsopen:
		return "fsopen", true
	case sysFsconfig:
		return "fsconfig", true
	case sysFsmount:
		return "fsmount", true
	case sysOpenTree:
		return "open_tree", true
	case sysMoveMount:
		return "move_mount", true
	case sysMountSetattr:
		return "mount_setattr", true
	case syscall.SYS_MOUNT:
		return "mount", true
	case syscall.SYS_PIVOT_ROOT:
		return "pivot_root", true
	case syscall.SYS_BIND:
		return "bind", true
	case syscall.SYS_MKDIRAT, syscall.SYS_MKNODAT:
		return "mount point", true
	}
	return "", false
}
