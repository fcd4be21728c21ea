package hub

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultEndpoint is the public Hub.
const DefaultEndpoint = "https://huggingface.co"

// envTrue reads a boolean as huggingface_hub does: anything but these is false.
func envTrue(name string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(os.Getenv(name)))
}

// envOr is the first non-empty variable of names.
func envOr(names ...string) string {
	for _, n := range names {
		if v := os.Getenv(n); v != "" {
			return v
		}
	}
	return ""
}

// envSeconds reads a time-out; like Python, unset and 0 mean the default.
func envSeconds(name string, def time.Duration) (time.Duration, error) {
	v := os.Getenv(name)
	if v == "" || v == "0" {
		return def, nil
	}
	seconds, err := strconv.ParseFloat(v, 64)
	if err != nil || seconds < 0 {
		return 0, fmt.Errorf("reading environment variable %s: %w: %q is not a number of seconds", name, ErrInvalid, v)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// expand resolves ~ and $VAR in a path that came from the environment.
func expand(path string) string {
	path = os.ExpandEnv(path)
	if path == "~" || strings.HasPrefix(path, "~/") {
		if home := userHome(); home != "" {
			return filepath.Join(home, path[1:])
		}
	}
	return path
}

// userHome is what Python's expanduser takes for ~: $HOME, else the user's entry in the system's list.
func userHome() string {
	if home, err := os.UserHomeDir(); err == nil {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// Home is Python's directory for everything of the Hub: $HF_HOME, else
// $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface on every system.
func Home() string {
	if v := os.Getenv("HF_HOME"); v != "" {
		return expand(v)
	}
	if v := os.Getenv("XDG_CACHE_HOME"); v != "" {
		return filepath.Join(expand(v), "huggingface")
	}
	return expand(filepath.Join("~", ".cache", "huggingface"))
}

func defaultCacheDir() string {
	if v := envOr("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"); v != "" {
		return expand(v)
	}
	return filepath.Join(Home(), "hub")
}

// TokenPath is where Python and this package keep the token: $HF_TOKEN_PATH, else
// $HF_HOME/token.
func TokenPath() string {
	if v := os.Getenv("HF_TOKEN_PATH"); v != "" {
		return expand(v)
	}
	return filepath.Join(Home(), "token")
}

// cleanToken is a token as Python takes it from files and variables.
func cleanToken(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(s))
}

// findToken gives the token and, for messages, where it came from.
func findToken() (token, source string, err error) {
	if os.Getenv("HF_OIDC_RESOURCE") != "" || os.Getenv("HF_OIDC_ID_TOKEN") != "" {
		return "", "", fmt.Errorf("%w: HF_OIDC_RESOURCE and HF_OIDC_ID_TOKEN are not supported; unset them and set HF_TOKEN", ErrInvalid)
	}
	if envTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
		return "", "", nil
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := cleanToken(os.Getenv(name)); t != "" {
			return t, name, nil
		}
	}
	path := TokenPath()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", fmt.Errorf("reading token: %w", err)
	}
	return cleanToken(string(text)), path, nil
}
