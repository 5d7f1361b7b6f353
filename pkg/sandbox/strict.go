package sandbox

// strictTops are the directories of / that the strict profile shows: programs and what they need.
var strictTops = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/sys", "/nix", "/gnu"}

// librariesDir is the one place of the strict profile's own from which libraries can be loaded; programs cannot be started there either.
const librariesDir = PrivateDir + "/lib"

// toolchains are what the strict profile shows of a home: directories that version managers and installers of languages
// put programs in, and nothing else.
var toolchains = []string{
	".nvm", ".fnm", ".local/share/fnm", ".volta", ".bun", ".deno", ".pyenv", ".rbenv", ".rustup", ".cargo/bin", ".asdf", ".sdkman", ".jenv", ".goenv", ".nodenv",
	".local/share/mise/installs", ".local/share/mise/shims", ".local/share/uv/python", ".local/share/uv/tools", ".local/share/pipx", ".local/bin", ".local/lib", "go/bin", "sdk",
	".ghcup", ".elan", ".juliaup", ".swiftly", ".dotnet", ".local/share/pnpm", ".nix-profile", ".linuxbrew", "miniconda3", "anaconda3", ".juliaup/bin",
}
