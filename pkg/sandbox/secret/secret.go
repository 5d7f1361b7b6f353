// Package secret lists where credentials and the like usually are.
package secret

import "iter"

// Home are paths below the home directory that hold credentials, histories or
// other agents' data. They are absent inside; * matches within one path element.
// The list follows the cases that other sandboxes protect or were asked to.
var Home = []string{
	// Keys and password stores.
	".ssh", ".gnupg", ".pki", ".password-store", ".local/share/keyrings", ".local/share/kwalletd",
	".local/share/gopass", ".config/sops", ".config/age", ".age", ".vault-token", ".config/op", ".op",
	".config/Bitwarden", ".config/Bitwarden CLI", ".config/Bitwarden*", ".config/1Password", ".config/keepassxc", ".keychain",
	// Clouds and clusters.
	".aws", ".azure", ".config/gcloud", ".kube", ".minikube", ".docker", ".config/containers", ".oci",
	".config/doctl", ".config/hcloud", ".config/linode-cli", ".fly", ".config/fly", ".config/heroku",
	".terraform.d/credentials.tfrc.json", ".terraform.d/credentials*", ".terraformrc", ".pulumi/credentials.json", ".config/rclone", ".s3cfg", ".boto",
	".config/wrangler", ".wrangler", ".config/netlify", ".config/vercel", ".local/share/com.vercel.cli", ".databrickscfg", ".snowflake",
	// Package registries and forges.
	".netrc", "_netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".config/pip", ".pip", ".git-credentials", ".config/git/credentials",
	".config/gh", ".config/glab-cli", ".config/hub", ".config/tea", ".cargo/credentials", ".cargo/credentials.toml",
	".gem/credentials", ".local/share/gem/credentials", ".bundle/config", ".composer/auth.json", ".config/composer/auth.json",
	".m2/settings.xml", ".m2/settings-security.xml", ".gradle/gradle.properties", ".nuget/NuGet.Config", ".config/NuGet",
	".hex/hex.config", ".config/pypoetry/auth.toml", ".condarc", ".huggingface", ".cache/huggingface/token", ".kaggle",
	// Databases.
	".pgpass", ".my.cnf", ".mylogin.cnf", ".mongorc.js", ".dbshell", ".config/redis",
	// Agents, their keys and what was said to them.
	".claude", ".claude.json", ".claude*", ".config/claude", ".config/claude*", ".codex", ".gemini", ".config/github-copilot", ".copilot", ".cursor", ".config/Cursor",
	".continue", ".aider.chat.history.md", ".aider.input.history", ".aider.conf.yml", ".aider*", ".config/opencode", ".local/share/opencode", ".config/goose", ".local/share/amp", ".amp", ".cache/amp", ".config/sesame",
	".config/anthropic", ".config/openai", ".local/share/goose", ".qwen", ".windsurf", ".codeium",
	// Browsers and mail.
	".mozilla", ".config/google-chrome", ".config/google-chrome*", ".config/chromium", ".config/chromium*", ".config/BraveSoftware", ".config/microsoft-edge", ".config/microsoft-edge*",
	".config/vivaldi", ".config/vivaldi*", ".config/opera", ".config/opera*", ".thunderbird", ".cache/mozilla", ".cache/google-chrome", ".cache/google-chrome*", ".cache/chromium", ".cache/chromium*",
	".librewolf", ".zen", "snap/firefox", "snap/chromium", ".var/app", ".mutt", ".muttrc", ".msmtprc", ".fetchmailrc", ".config/evolution", ".local/share/evolution",
	".config/Slack", ".config/discord", ".config/Signal", ".local/share/TelegramDesktop",
	// Histories.
	".bash_history", ".zsh_history", ".zsh_sessions", ".local/share/fish/fish_history", ".histfile", ".history", ".sh_history", ".python_history",
	".node_repl_history", ".psql_history", ".mysql_history", ".sqlite_history", ".rediscli_history", ".irb_history",
	".lesshst", ".viminfo", ".local/state/nvim", ".local/share/atuin", ".local/state/bash", ".local/state/zsh", ".ICEauthority", ".Xauthority",
	// macOS.
	"Library/Keychains", "Library/Cookies", "Library/Safari", "Library/Mail", "Library/Messages",
	"Library/Application Support/Google/Chrome", "Library/Application Support/Firefox", "Library/Application Support/Claude", "Library/Application Support/sesame",
}

// System are paths outside of homes that hold credentials. They matter most to
// root, who could otherwise read them as their owner.
var System = []string{
	"/etc/shadow*", "/etc/gshadow*", "/etc/security/opasswd", "/etc/sudoers", "/etc/sudoers.d",
	"/etc/ssh/ssh_host_*_key", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/letsencrypt", "/etc/krb5.keytab",
	"/etc/wireguard", "/etc/openvpn", "/etc/NetworkManager/system-connections", "/etc/wpa_supplicant", "/etc/ppp/*-secrets",
	"/etc/kubernetes", "/etc/rancher", "/etc/docker/key.json", "/etc/ipsec.secrets",
	"/var/lib/kubelet", "/var/lib/rancher", "/var/lib/docker", "/var/lib/containerd", "/var/lib/private", "/var/lib/systemd/random-seed",
	"/var/lib/sss/secrets", "/var/lib/cloud", "/var/spool/cron", "/var/mail", "/var/spool/mail", "/var/log/journal", "/var/backups",
	"/sys/kernel/debug", "/sys/kernel/tracing", "/sys/firmware/efi", "/sys/fs/bpf",
}

// AtHome are those of Home that lie in the home directory itself, whatever else is there.
func AtHome() iter.Seq[string] {
	return func(yield func(string) bool) {
	names:
		for _, name := range Home {
			for i := range len(name) {
				if name[i] == '/' || name[i] == '*' {
					continue names
				}
			}
			if !yield(name) {
				return
			}
		}
	}
}
