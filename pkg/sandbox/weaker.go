package sandbox

// A Weakness is what a tier does not hold that the tier namespaces does.
type Weakness struct {
	ID   string `json:"id"`   // a word, for lists and scripts
	Text string `json:"text"` // as a person reads it
}

// landlockWeaknesses is the one list of what the tier landlock holds less: the documentation, `doctor`,
// `sandbox --explain` and each run's notice have it from here. before is the version of Landlock that mends it, 0 for none.
var landlockWeaknesses = []struct {
	Weakness
	before int
}{
	{Weakness{"processes", "other processes are seen in /proc, with their arguments; their memory, environment and files are not"}, 0},
	{Weakness{"metadata", "that a hidden file exists, and its size and times, can be found out by who knows its name; its content cannot"}, 0},
	{Weakness{"workspace-guard", "what makes the host run code later (.git/hooks, .git/config, .vscode ...) can be written in the workspace where it is there already: look at it before you run git there"}, 0},
	{Weakness{"interfaces", "names and addresses of the machine's network interfaces can be read, and the host's name"}, 0},
	{Weakness{"servers", "a server inside can be reached by other programs of this machine, at an address 127.x.y.z of the run's own; not from the network"}, 0},
	{Weakness{"kernel", "the kernel's files in /sys and /proc/sys can be read"}, 0},
	{Weakness{"shared-memory", "/dev/shm is the host's, if nothing of yours is in it when the sandbox starts; if there is, programs inside have none"}, 0},
	{Weakness{"priority", "priority and processors of the user's other programs can be changed"}, 0},
	{Weakness{"keeper", "if the process that watches over the sandbox is killed, what had detached itself stays"}, 0},
	{Weakness{"signals", "the user's other programs can be sent signals (this kernel's Landlock is older than 6, Linux 6.12)"}, 6},
	{Weakness{"ioctl", "devices that are open can be steered (this kernel's Landlock is older than 5, Linux 6.10)"}, 5},
	{Weakness{"ports", "that connections are made by the supervisor only is held by one lock instead of two (this kernel's Landlock is older than 4, Linux 6.7)"}, 4},
}

// Weaknesses lists what a tier holds less than namespaces, where the kernel's Landlock has the version abi.
func Weaknesses(t Tier, abi int) []Weakness {
	if t != Landlock {
		return nil
	}
	var list []Weakness
	for _, w := range landlockWeaknesses {
		if w.before == 0 || abi < w.before {
			list = append(list, w.Weakness)
		}
	}
	return list
}
