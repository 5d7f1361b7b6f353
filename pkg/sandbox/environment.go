package sandbox

import (
	"slices"
	"strings"
)

// passedNames are the host's variables that programs need and that hold no secret.
var passedNames = []string{
	"PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "TERMINFO", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES",
	"CI", "EDITOR", "PAGER",
	// Toolchains that are not where they are looked for by default.
	"GOPATH", "GOROOT", "GOTOOLCHAIN", "GOFLAGS", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "NVM_DIR", "NVM_BIN", "FNM_DIR", "VOLTA_HOME", "PNPM_HOME", "BUN_INSTALL", "DENO_DIR",
	"PYENV_ROOT", "VIRTUAL_ENV", "CONDA_PREFIX", "RBENV_ROOT", "GEM_HOME", "JAVA_HOME", "ANDROID_HOME", "MISE_DATA_DIR", "ASDF_DIR", "ASDF_DATA_DIR", "SDKMAN_DIR", "NIX_PATH",
	// Where a company's certificates are. Paths only.
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "NIX_SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO",
}

// Environment builds a command's environment from nothing: of host, only what programs need, all
// LC_ variables, and what pass names. A name in pass may end in "*".
func Environment(host []string, home string, pass []string) []string {
	env := []string{"HOME=" + home}
	for _, kv := range host {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "HOME" {
			continue
		}
		if slices.Contains(passedNames, name) || strings.HasPrefix(name, "LC_") || matchesAny(pass, name) {
			env = append(env, kv)
		}
	}
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "GIT_CONFIG_COUNT=") }) {
		env = append(env, gitSettings...)
	}
	return env
}

// gitSettings keep git from writing into .git/info, which is guarded, when it packs a repository: servers that know nothing of git need that.
var gitSettings = []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=repack.updateServerInfo", "GIT_CONFIG_VALUE_0=false"}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || p == name {
			return true
		}
	}
	return false
}

// setVariables is the environment with variables of these values only.
func setVariables(env []string, set ...string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(out, set...)
}
