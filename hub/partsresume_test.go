package hub_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// An upload in parts that was cut short goes on in another process with the parts that are missing.
func TestUploadInPartsGoesOn(t *testing.T) {
	const size, part = 500_000, 50_000
	tests := []struct {
		name    string
		between func(t *testing.T, r *rig, record string)
		sent    int64 // by the second push
	}{
		{"only the missing parts", nil, size - 6*part},
		{"the old upload has ended: all of it again", func(_ *testing.T, r *rig, _ string) {
			r.hub.Inject(hubtest.Fault{Path: "/lfs/part/", Times: 1, Do: hubtest.Status(404)})
		}, size},
		{"the old addresses have expired", func(_ *testing.T, r *rig, _ string) {
			r.hub.Inject(hubtest.Fault{Path: "/lfs/part/", Times: 1, Do: hubtest.Status(403)})
		}, size},
		{"the parts are not joined any more", func(_ *testing.T, r *rig, _ string) {
			r.hub.Inject(hubtest.Fault{Path: "/lfs/complete/", Times: 1, Do: hubtest.Status(400)})
		}, 2*size - 6*part},
		{"the record breaks off", func(t *testing.T, _ *rig, record string) {
			text := mustRead(t, record)
			os.WriteFile(record, []byte(text[:len(text)-5]), 0o600)
		}, size - 5*part},
		{"the record is nonsense", func(_ *testing.T, _ *rig, record string) { os.WriteFile(record, []byte("{}\n{}"), 0o600) }, size},
		{"the record is lost", func(_ *testing.T, _ *rig, record string) { os.Remove(record) }, size},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, hubtest.WithPartSize(part))
			data := blobOf(11, size)
			dir := folder(t, map[string][]byte{"big.bin": data})
			r.hub.Inject(hubtest.Fault{Path: "/lfs/part/", Skip: 6, Do: hubtest.Status(400)})
			_, err := r.client(hub.WithJobs(1)).Push(context.Background(), repo, dir, hub.PushOptions{})
			if err == nil || !strings.Contains(err.Error(), "400") {
				t.Fatalf("error %v; want the fault", err)
			}
			r.hub.Forget()
			records, _ := filepath.Glob(filepath.Join(r.cache, ".locks", "uploads", "*.json"))
			if len(records) != 1 {
				t.Fatalf("records %v; want one", records)
			}
			if info, err := os.Stat(records[0]); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("signed addresses in a file of mode %v, %v", info.Mode(), err)
			}
			if tt.between != nil {
				tt.between(t, r, records[0])
			}
			got, err := r.client(hub.WithJobs(1)).Push(context.Background(), repo, dir, hub.PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Sent < tt.sent || got.Sent > tt.sent+part { // a part that is refused may have been on its way
				t.Errorf("sent %d bytes; want %d", got.Sent, tt.sent)
			}
			if there, err := r.hub.Read("model", repoID, "main", "big.bin"); err != nil || string(there) != string(data) {
				t.Errorf("on the Hub: %d bytes, %v", len(there), err)
			}
			if left, _ := filepath.Glob(filepath.Join(r.cache, ".locks", "uploads", "*.json")); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}
