package hub

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// checkPath refuses a file name that could leave the directory it is put under.
// Names in listings are input from a server, so this runs before any write.
func checkPath(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: file name %q %s", ErrDamaged, name, why)
	}
	switch {
	case name == "":
		return bad("is empty")
	case strings.ContainsRune(name, 0):
		return bad("contains a NUL byte")
	case len(name) >= 2 && name[1] == ':' && isLetter(name[0]):
		return bad("begins with a drive letter")
	case strings.HasPrefix(name, `\`):
		return bad("is an absolute path")
	}
	for _, part := range strings.Split(name, "/") {
		switch part {
		case "":
			return bad("is absolute or has an empty part")
		case ".", "..":
			return bad("contains " + part)
		}
	}
	for _, part := range strings.Split(name, `\`) {
		if part == ".." {
			return bad(`contains ..\`)
		}
	}
	if runtime.GOOS == "windows" {
		return checkWindowsPath(name)
	}
	return nil
}

var windowsDevice = regexp.MustCompile(`(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?$`)

// checkWindowsPath refuses what Windows would take for a device, or store under
// another name.
func checkWindowsPath(name string) error {
	for _, part := range strings.Split(name, "/") {
		if windowsDevice.MatchString(part) || strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") || strings.ContainsAny(part, `<>:"|?*\`) {
			return fmt.Errorf("%w: file name %q is reserved or impossible on Windows; leave it out with a pattern", ErrDamaged, name)
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// checkCollisions refuses names that differ only in case where dir's volume does
// not tell them apart: one would silently overwrite the other.
func checkCollisions(dir string, files []File) error {
	seen := make(map[string]string, len(files))
	for _, f := range files {
		folded := strings.ToLower(f.Path)
		if other, ok := seen[folded]; ok && (other == f.Path || ignoresCase(dir)) {
			return fmt.Errorf("%w: the repository has both %q and %q, which are one file on this volume", ErrDamaged, other, f.Path)
		}
		seen[folded] = f.Path
	}
	return nil
}

// ignoresCase asks the volume, since neither system nor file system type decides it;
// a variable, for the tests.
var ignoresCase = func(dir string) bool {
	probe, err := os.CreateTemp(dir, "case-probe-")
	if err != nil {
		return runtime.GOOS == "windows" || runtime.GOOS == "darwin"
	}
	probe.Close()
	defer os.Remove(probe.Name())
	_, err = os.Lstat(filepath.Join(dir, strings.ToUpper(filepath.Base(probe.Name()))))
	return err == nil
}
