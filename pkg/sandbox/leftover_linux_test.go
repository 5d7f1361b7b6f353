package sandbox

import (
	"os"
	"testing"
)

// A command of which something is left ends as it ended, whether its streams are files, as on a terminal, or pipes.
func TestEndWithLeftover(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for range 10 { // what was wrong was wrong when the shim had ended before it was waited for
		h := newHost(t)
		mark := uniqueSleep()
		process, err := Start(t.Context(), &h.policy, &Command{
			Args: []string{"/bin/sh", "-c", "sleep " + mark + " & exit 7"}, Env: h.env, Stdin: null, Stdout: null, Stderr: null,
		})
		if err != nil {
			t.Fatal(err)
		}
		status, err := process.Wait()
		if err != nil || status.Code != 7 {
			t.Errorf("ended with %+v, %v", status, err)
		}
		waitGone(t, mark)
	}
}
