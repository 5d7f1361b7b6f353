package config

import (
	"regexp"
	"strings"
	"testing"
)

func TestPlaceholder(t *testing.T) {
	for name, c := range map[string]struct{ key, shape string }{
		"user":      {"sgamp_user_01ABCDEFGHJKMNPQRSTVWXYZ01_" + strings.Repeat("0123456789abcdef", 4), `^sgamp_user_[A-Z0-9]{26}_[a-f0-9]{64}$`},
		"service":   {"sgamp_sa_01ABCDEFGHJKMNPQRSTVWXYZ01_" + strings.Repeat("0123456789abcdef", 4), `^sgamp_sa_[A-Z0-9]{26}_[a-f0-9]{64}$`},
		"short":     {"abc", `^sgamp_user_[A-Z0-9]{26}_[a-f0-9]{64}$`},
		"shapeless": {"correct-horse-battery-staple", `^[a-f0-9]{28}$`},
	} {
		key, err := NewKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		one, err := key.Placeholder()
		if err != nil {
			t.Fatal(err)
		}
		two, err := key.Placeholder()
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(c.shape).MatchString(one.Reveal()) {
			t.Errorf("%s: %s", name, one.Reveal())
		}
		if one == two || one == key {
			t.Errorf("%s: always the same, or the key itself: %s", name, one.Reveal())
		}
	}
	// Parts that are too short to be random stay, so such a key must not become itself.
	key, _ := NewKey("a_b_c_d_e_f_g_h_i_j_k_l_m")
	if p, err := key.Placeholder(); err != nil || p == key {
		t.Errorf("%s, %v", p.Reveal(), err)
	}
}
