package amptest

import (
	"context"
	"time"
)

// Faults is what goes wrong at the service. The zero value is a healthy one.
type Faults struct {
	UserInfoStatus      int           // HTTP status of getUserInfo; 0 is normal
	ThreadActorsStatus  int           // HTTP status of /api/thread-actors, 402 for out of credit; 0 is normal
	ThreadActorsMessage string        // what it says then
	ProviderStatus      int           // HTTP status of every model call, as if each message said HTTP:<status>; 0 is normal
	Delay               time.Duration // before each answer under /api/
}

// SetFaults replaces what goes wrong from now on.
func (s *Service) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Service) fault() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// pause waits for d or until ctx ends, and tells whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
