package first

import "syscall"

// LimitsRoot tells whether the number of processes has to be limited by their ids, and can be. Root's are not counted otherwise. Before
// Linux 6.14 this is a setting of the whole machine, which root could change in any namespace.
func LimitsRoot() bool {
	return syscall.Getuid() == 0 && kernel() >= 6<<8+14
}

// kernel is the version of Linux that runs, 6<<8+14 for 6.14; 0 if it is not known.
func kernel() int {
	var names syscall.Utsname
	if syscall.Uname(&names) != nil {
		return 0
	}
	var release [len(names.Release)]byte
	for i, c := range names.Release {
		release[i] = byte(c)
	}
	return version(release[:])
}

// version reads that of a release, such as 6.14.0-37-generic.
func version(release []byte) int {
	var parts [2]int
	part, digits := 0, 0
	for _, c := range release {
		switch {
		case c >= '0' && c <= '9':
			parts[part] = min(parts[part]*10+int(c-'0'), 1<<8-1)
			digits++
		case c == '.' && digits > 0 && part == 0:
			part, digits = 1, 0
		case part == 1 && digits > 0:
			return parts[0]<<8 + parts[1]
		default:
			return 0
		}
	}
	if part == 0 || digits == 0 {
		return 0
	}
	return parts[0]<<8 + parts[1]
}

// LeastIDs is the least that a process namespace can have.
const LeastIDs = 301

// LimitIDs has the process namespace give no ids above a number.
func (s *Script) LimitIDs(most string) {
	s.Call(syscall.SYS_WRITE, In(MostIDs), s.Text(most), Value(len(most)))
	s.Close(MostIDs)
}
