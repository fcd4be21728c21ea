package vision

// Format names the kind of an encoded image file, such as JPEG, by its first bytes. The error is
// [ErrFormat] if it is none that [Decode] reads.
func Format(b []byte) (string, error) {
	f, err := formatOf(b)
	if err != nil {
		return "", err
	}
	return f.name, nil
}
