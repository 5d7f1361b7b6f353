package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sesame-cli/sesame/pkg/config"
	"github.com/sesame-cli/sesame/pkg/config/fault"
	"github.com/sesame-cli/sesame/pkg/sandbox"
)

// serversInside is where Amp finds the MCP servers: the sandbox may not show the file that they were read from,
// and arguments, where they could stand as JSON with tokens in it, are seen by others.
const serversInside = sandbox.PrivateDir + "/mcp.json"

const maxServers = 1 << 20 // bytes

// readServers is the JSON of amp.mcp-config, nil where that is empty. What Amp would refuse is a fault.Usage.
func readServers(ctx context.Context, cfg *config.Config) ([]byte, error) {
	value := cfg.Amp.MCPConfig
	if value == "" {
		return nil, nil
	}
	name := cfg.Origin("amp.mcp-config").Of("amp.mcp-config")
	data := []byte(value)
	if !strings.HasPrefix(strings.TrimSpace(value), "{") {
		var err error
		if data, err = readServersFile(ctx, value); err != nil {
			return nil, fault.New(fault.Usage, "%s: %w", name, err)
		}
		name += ": " + value
	}
	var servers map[string]json.RawMessage
	if err := json.Unmarshal(data, &servers); err != nil || servers == nil {
		if err == nil || errors.As(err, new(*json.UnmarshalTypeError)) {
			err = errors.New("it is no object")
		}
		return nil, fault.New(fault.Usage, "%s: not the MCP servers as JSON: %w", name, err).
			Hint(`it looks like {"name": {"command": "program", "args": []}}, without comments`)
	}
	return data, nil
}

func readServersFile(ctx context.Context, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(ctx, f, maxServers)
	if err == nil && len(data) > maxServers {
		err = fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return data, err
}
