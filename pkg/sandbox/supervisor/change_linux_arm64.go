package supervisor

// changesHere: arm64 has the newer calls only.
func changesHere() map[uintptr]change { return nil }
