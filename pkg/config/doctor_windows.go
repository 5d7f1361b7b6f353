package config

// mayWrite leaves it to the access list of the user's profile.
func mayWrite(string) error { return nil }

func filledByRoot(string) bool { return false }
