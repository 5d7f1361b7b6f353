package supervisor

// changesHere: arm64 has the newer calls only.
var changesHere map[uintptr]change
