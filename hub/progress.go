package hub

// State is what happens to a file during Pull or Push.
type State string

// The states a file passes through.
const (
	Waiting  State = "waiting"  // for a lock that another process holds
	Running  State = "running"  // bytes are moving
	Retrying State = "retrying" // Err says why; the transfer goes on after a pause
	Checking State = "checking" // bytes that are already here are being hashed
	Done     State = "done"
	Failed   State = "failed"  // Err says why; what has come is kept where it is of use
	Skipped  State = "skipped" // nothing to transfer: cached, unchanged, or kept
)

// An Event tells how far one file is. Done and Total are bytes; Total is -1 if
// unknown.
type Event struct {
	File        string
	State       State
	Done, Total int64
	Err         error
}

// Progress receives events. Calls never overlap, and it must return quickly.
type Progress func(Event)

func (c *Client) report(e Event) {
	if c.progress == nil {
		return
	}
	c.progressMu.Lock()
	defer c.progressMu.Unlock()
	c.progress(e)
}
