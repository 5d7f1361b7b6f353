package config

import "io/fs"

// On Windows the profile directory's access list does what modes do elsewhere.
func looseFile(fs.FileInfo, string) (why, remedy string) { return "", "" }
func looseDir(fs.FileInfo, string) (why, remedy string)  { return "", "" }
