package adapters

import (
	"reflect"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// Setting is a key of adapter_config.json that a method reads beside [format.SharedKeys].
type Setting struct {
	Key  string
	Type reflect.Type // of its value; a pointer's and a RawMessage's may be null

	// Is says what a value must be beyond its type: "positive", for a share "share" (in [0, 1)), for
	// the name of an initialisation or a boolean "word".
	Is string

	// Usage says in a few words what it is for. It is empty for keys that PEFT writes into every file,
	// and which a new adapter cannot have at other values than PEFT's defaults.
	Usage string
}

// Settings lists a method's settings, in the order of their importance; none for an unknown method.
func Settings(peftType string) []Setting {
	var list []Setting
	for _, m := range methods {
		if m.name != peftType {
			continue
		}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(m.fields)) {
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" {
				list = append(list, Setting{key, f.Type, f.Tag.Get("is"), f.Tag.Get("usage")})
			}
		}
	}
	return list
}

// CheckNew refuses what [New] refuses whatever the base is: an error that wraps [ErrMethod] for what
// hubtool cannot do, [format.ErrConfig] for what makes no sense.
func CheckNew(cfg *format.AdapterConfig) error {
	m, err := construct(cfg)
	if err != nil {
		return err
	}
	if m, ok := m.(Creator); ok {
		return m.Creates()
	}
	return nil
}
