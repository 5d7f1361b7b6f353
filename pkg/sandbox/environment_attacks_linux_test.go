package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the user's shell exports: secrets, and what makes programs execute something first.
func TestEnvironmentStaysOutside(t *testing.T) {
	secrets := []string{
		"GITHUB_TOKEN", "GH_TOKEN", "NPM_TOKEN", "MY_SECRET", "DB_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET",
		"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DOCKER_HOST", "KUBECONFIG", "HTTPS_PROXY",
		"KUBERNETES_SERVICE_HOST", "VAULT_TOKEN", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_ASKPASS", "PYTHONSTARTUP", "PYTHONPATH", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "ENV", "PROMPT_COMMAND", "LD_AUDIT", "LD_LIBRARY_PATH", "TMUX",
	}
	var attacks []attack
	for _, name := range secrets {
		t.Setenv(name, "SECRET-"+name)
		attacks = append(attacks, attack{name, `[ "$` + name + `" = SECRET-` + name + ` ] && echo GOT`, true})
	}
	h := newHost(t)
	evil := h.write("src/project/evil", "echo GOT\n")
	script := h.write("src/project/evil.js", "console.log('GOT')\n")
	// Of the whole machine only what is loaded by it itself is known to be there.
	libraries, err := filepath.Glob("/lib*/*/libm.so.6")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no library to load: %v", err)
	}
	t.Setenv("BASH_ENV", evil)
	t.Setenv("NODE_OPTIONS", "--require="+strings.ReplaceAll(script, " ", `\ `))
	t.Setenv("LD_PRELOAD", libraries[0])
	h.outside = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }), "HOME="+h.policy.Home)
	h.env = Environment(os.Environ(), h.policy.Home, nil)
	attacks = append(
		attacks,
		attack{"a script that shells run first", `true`, true}, // it has run when this does
		attack{"a script that Node runs first", `cd /; NODE_OPTIONS=${NODE_OPTIONS:+"--require=\"` + script + `\""} node -e 0 | grep GOT`, true},
		attack{"a library that is loaded first", `cat /proc/self/maps | grep /libm.so && echo GOT`, true},
		attack{"any of them in any process", `cat /proc/[0-9]*/environ | tr '\0' '\n' | grep SECRET- && echo GOT`, true},
	)
	h.refuse(attacks)
}
