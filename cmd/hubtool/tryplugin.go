package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tryTimeout is long enough for a plugin that looks for devices on a busy machine.
const tryTimeout = 2 * time.Minute

// tryPlugin loads an XLA plugin in another process, because a wrong one can crash the one that it is
// loaded into. That it worked is remembered for as long as the file stays the same.
func tryPlugin(ctx context.Context, plugin string) error {
	self, err := os.Executable()
	if err != nil {
		return nil //nolint:nilerr // the plugin is loaded untried then
	}
	stamp := tried(plugin)
	if _, err := os.Stat(stamp); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "--json", "engine", "try", "--", plugin)
	var out bytes.Buffer
	cmd.Stderr = &out
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the plugin does not answer within %v", tryTimeout)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		if stamp != "" && os.MkdirAll(filepath.Dir(stamp), 0o777) == nil {
			_ = os.WriteFile(stamp, nil, 0o666) // or it is tried again
		}
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("trying the plugin: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var failed struct {
		Error struct{ Message string }
	}
	if json.Unmarshal([]byte(lines[len(lines)-1]), &failed) == nil && failed.Error.Message != "" {
		return errors.New(failed.Error.Message)
	}
	return fmt.Errorf("the plugin crashes when it is loaded (%v)", exit)
}

// tried is the file that remembers a success, or "" where there is no place for it.
func tried(plugin string) string {
	info, err := os.Stat(plugin)
	cache, cacheErr := os.UserCacheDir()
	if err != nil || cacheErr != nil {
		return ""
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", plugin, info.Size(), info.ModTime().UnixNano()))
	return filepath.Join(cache, "hubtool", "plugins", fmt.Sprintf("%x", key[:16]))
}
