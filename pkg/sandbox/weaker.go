package sandbox

// A Weakness is what a tier does not hold that the tier namespaces does.
type Weakness struct {
	ID   string `json:"id"`   // a word, for lists and scripts
	Text string `json:"text"` // as a person reads it
}

// weakSignals is the id of a weakness that the canaries know of.
const weakSignals = "signals"

// landlockWeaknesses is the one list of what the tier landlock holds less: the documentation, `doctor`,
// `sandbox --explain` and each run's notice have it from here. before is the version of Landlock that mends it, 0 for none.
var landlockWeaknesses = []struct {
	Weakness
	before int
}{
	{Weakness{"processes", "other processes are seen in /proc, with their arguments; their memory, environment and files are not"}, 0},
	{Weakness{"metadata", "that a hidden file exists, and its size and times, can be found out by who knows its name; its content cannot"}, 0},
	{Weakness{"workspace-guard", "what makes the host run code later (.git/hooks, .git/config, .vscode ...) can be changed in the workspace while the sandbox runs; it is put back at the end"}, 0},
	{Weakness{"interfaces", "names and addresses of the machine's network interfaces can be read, and the host's name"}, 0},
	{Weakness{"servers", "a server inside can be reached by other programs of this machine, at an address 127.x.y.z of the run's own; not from the network"}, 0},
	{Weakness{"kernel", "the kernel's files in /sys and /proc/sys can be read"}, 0},
	{Weakness{"shared-memory", "/dev/shm is the host's, if nothing of yours is in it when the sandbox starts; if there is, programs inside have none"}, 0},
	{Weakness{"priority", "priority and processors of the user's other programs can be changed"}, 0},
	{Weakness{"execution", "with --profile strict, what was written outside of the workspace cannot be started, but the loader (ld-linux.so PROGRAM) and interpreters can still be told to load it"}, 0},
	{Weakness{"keeper", "if the process that watches over the sandbox is killed, what had detached itself stays"}, 0},
	{Weakness{weakSignals, "the user's other programs can be sent signals (this kernel's Landlock is older than 6, Linux 6.12)"}, 6},
	{Weakness{"ioctl", "devices that are open can be steered (this kernel's Landlock is older than 5, Linux 6.10)"}, 5},
	{Weakness{"ports", "that connections are made by the supervisor only is held by one lock instead of two (this kernel's Landlock is older than 4, Linux 6.7)"}, 4},
}

// seatbeltWeaknesses is the same for the tier seatbelt.
var seatbeltWeaknesses = []Weakness{
	{"unproven", "not yet run on macOS by us: the profile is tested as a text, the rest on Linux; scripts/mactest checks it on a Mac"},
	{"environment", "arguments and environment with which the user's other programs were started can be read: keep keys in `sesame login`, not in the shell's environment"},
	{"proxy", "programs have to use the proxy that variables name: Amp's JavaScript builds (to May 2026) do not, unless Node is 22.21, 24 or newer; ssh and other protocols do not either"},
	{"certificates", "programs that let macOS check certificates (Go's, Apple's own) do not trust any: the service that checks them would fetch what a certificate names, and is not reachable"},
	{"home", "the home is a directory of its own with links and copies, not a copy-on-write view of yours; caches begin empty"},
	{"servers", "a server inside needs --allow-host localhost:PORT, is then reached by the whole network if it listens there, and so is a server of yours at that port"},
	{"metadata", "that directories on the way to what is shown exist can be seen"},
	{"processes", "POSIX semaphores and shared memory are those of the whole machine; /bin/ps and other set-uid programs do not start"},
	{"repositories", "a new repository cannot be made at the top of the workspace, hard links and clones of files cannot be made at all"},
	{"terminal", "no job control (ctrl-z, fg) for the command itself"},
	{"keeper", "if the process that watches over the sandbox is killed from inside, what had detached itself stays"},
}

// Weaknesses lists what a tier holds less than namespaces, where the kernel's Landlock has the version abi.
func Weaknesses(t Tier, abi int) []Weakness {
	switch t {
	case Seatbelt:
		return seatbeltWeaknesses
	case Landlock:
	default:
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
