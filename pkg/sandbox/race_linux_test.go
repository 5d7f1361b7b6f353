//go:build race

package sandbox

// raceDetector says that the tests have the race detector's own memory in them.
const raceDetector = true
