package amp

import "github.com/sesame-cli/sesame/pkg/config/regex"

// A thread id goes into Amp's arguments and into messages, and comes from a
// stream and from files that a hostile program inside the sandbox can write.
var threadPattern = regex.Lazy(`^T-[0-9A-Za-z-]{8,64}$`)

// ValidThread tells whether id has the form of Amp's thread ids.
func ValidThread(id string) bool { return threadPattern().MatchString(id) }

// threadID is id if it has the form of one, else "".
func threadID(id string) string {
	if ValidThread(id) {
		return id
	}
	return ""
}
