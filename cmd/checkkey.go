package cmd

import (
	"context"

	"github.com/sesame-cli/sesame/pkg/amp"
	"github.com/sesame-cli/sesame/pkg/config"
)

// askService asks the service for the owner of a key.
func askService(ctx context.Context, url string, key config.Key) (account, error) {
	user, err := amp.NewService(url, key.Reveal(), nil).UserInfo(ctx)
	return account{user.ID, user.Email}, err
}
