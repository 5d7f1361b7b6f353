package config

func keyringName(Env) string { return "the Credential Manager" }
