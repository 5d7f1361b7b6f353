package amptest

import "os"

// Env is an environment in which a bare Amp uses the service and the given
// home, and nothing else of the user's. Call it after Start.
func (s *Service) Env(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home,
		"LANG=C.UTF-8",
		"AMP_URL=" + s.URL(),
		"AMP_API_KEY=" + s.Key(),
		"AMP_SKIP_UPDATE_CHECK=1",
		"AMP_REMOTE_CONTROL_TERMINAL=0",
	}
}
