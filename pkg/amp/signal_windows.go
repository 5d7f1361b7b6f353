package amp

import "os"

// terminate cannot be sent on Windows; the attempt leads to a kill.
var terminate = os.Interrupt
