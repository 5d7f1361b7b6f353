package cmd

import "errors"

// errNotYet stands in for what is not built.
var errNotYet = errors.New("not built yet")
