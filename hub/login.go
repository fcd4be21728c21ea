package hub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// SaveToken stores a token where Python and this package look for it, and under its
// name among the stored tokens that `hf auth switch` offers. The name is the one
// that [Client.WhoAmI] gives.
func SaveToken(token, name string) error {
	token = cleanToken(token)
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return fmt.Errorf("saving the token: %w: it is empty or has characters that no token has", ErrInvalid)
	}
	stored, err := readStoredTokens()
	if err != nil {
		return fmt.Errorf("saving the token: %w", err)
	}
	if name != "" && strings.EqualFold(name, "DEFAULT") || strings.ContainsAny(name, "[]\r\n") {
		return fmt.Errorf("saving the token: %w: Python cannot store a token under the name %q", ErrInvalid, name)
	}
	if err := os.MkdirAll(filepath.Dir(TokenPath()), 0o700); err != nil {
		return fmt.Errorf("saving the token: %w", err)
	}
	if name != "" {
		stored.set(name, token)
		if err := stored.write(); err != nil {
			return fmt.Errorf("saving the token: %w", err)
		}
	}
	if err := writeAtomic(TokenPath(), []byte(token), 0o600); err != nil {
		return fmt.Errorf("saving the token: %w", err)
	}
	return nil
}

// ForgetToken removes the token file, and the token's entries among the stored
// tokens. Other stored tokens stay. It is no error if there is no token; removed
// says whether there was one.
func ForgetToken() (removed bool, err error) {
	text, err := os.ReadFile(TokenPath())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing the token: %w", err)
	}
	stored, err := readStoredTokens()
	if err != nil {
		return false, fmt.Errorf("removing the token: %w", err)
	}
	if stored.drop(cleanToken(string(text))) {
		if err := stored.write(); err != nil {
			return false, fmt.Errorf("removing the token: %w", err)
		}
	}
	if err := os.Remove(TokenPath()); err != nil {
		return false, fmt.Errorf("removing the token: %w", err)
	}
	return true, nil
}

// storedTokens is the file stored_tokens: sections of Python's configparser, with
// keys that we do not know kept as they are.
type storedTokens map[string][]string // section → its lines

func storedTokensPath() string { return filepath.Join(filepath.Dir(TokenPath()), "stored_tokens") }

func readStoredTokens() (storedTokens, error) {
	text, err := os.ReadFile(storedTokensPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	stored, section := storedTokens{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			stored[section] = nil
		case strings.TrimSpace(line) != "" && section != "":
			stored[section] = append(stored[section], line)
		}
	}
	return stored, nil
}

// tokenLine splits a line such as "hf_token = hf_…". Keys have no case.
func tokenLine(line string) (value string, ok bool) {
	i := strings.IndexAny(line, "=:")
	if i < 0 || !strings.EqualFold(strings.TrimSpace(line[:i]), "hf_token") {
		return "", false
	}
	return strings.TrimSpace(line[i+1:]), true
}

func (s storedTokens) set(name, token string) {
	lines := slices.DeleteFunc(s[name], func(l string) bool { _, ok := tokenLine(l); return ok })
	s[name] = append([]string{"hf_token = " + token}, lines...)
}

// drop removes the sections of a token and says whether there were any.
func (s storedTokens) drop(token string) bool {
	before := len(s)
	for name, lines := range s {
		if slices.ContainsFunc(lines, func(l string) bool { v, ok := tokenLine(l); return ok && v == token }) {
			delete(s, name)
		}
	}
	return len(s) < before
}

func (s storedTokens) write() error {
	var names []string
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		b.WriteString("[" + name + "]\n")
		for _, line := range s[name] {
			b.WriteString(line + "\n")
		}
		b.WriteString("\n")
	}
	return writeAtomic(storedTokensPath(), []byte(b.String()), 0o600)
}
