package hub_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// Pull two kinds of file of a repository into a cache, from a fake Hub.
func ExampleClient_Pull() {
	fake := hubtest.New()
	fake.Commit("model", "acme/vit", "main", "first", map[string][]byte{
		"config.json": []byte("{}"), "model.safetensors": []byte("weights"), "training.log": []byte("…"),
	})
	server := httptest.NewServer(fake)
	defer server.Close()
	cache, _ := os.MkdirTemp("", "hub")
	defer os.RemoveAll(cache)

	client, err := hub.New(hub.WithEndpoint(server.URL), hub.WithCacheDir(cache), hub.WithToken(""))
	if err != nil {
		fmt.Println(err)
		return
	}
	repo, _ := hub.ParseRepo("acme/vit")
	snap, err := client.Pull(context.Background(), repo, hub.PullOptions{Include: []string{"*.safetensors", "*.json"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range snap.Files {
		fmt.Println(f.Name, f.Size)
	}
	// Output:
	// config.json 2
	// model.safetensors 7
}

// Push a folder; the repository is created.
func ExampleClient_Push() {
	fake := hubtest.New(hubtest.WithToken("hf_example"))
	server := httptest.NewServer(fake)
	defer server.Close()
	dir, _ := os.MkdirTemp("", "adapter")
	defer os.RemoveAll(dir)
	os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte("{}"), 0o666)

	client, err := hub.New(hub.WithEndpoint(server.URL), hub.WithToken("hf_example"))
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := client.Push(context.Background(), hub.Repo{ID: "acme/adapter"}, dir, hub.PushOptions{Private: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(done.Uploaded)
	// Output:
	// [adapter_config.json]
}

// Errors say what is missing.
func ExampleError() {
	fake := hubtest.New()
	server := httptest.NewServer(fake)
	defer server.Close()
	client, _ := hub.New(hub.WithEndpoint(server.URL), hub.WithToken(""))
	_, err := client.Info(context.Background(), hub.Repo{ID: "acme/none"})
	var e *hub.Error
	if errors.Is(err, hub.ErrNotFound) && errors.As(err, &e) {
		fmt.Println(e.Status, e.Code)
	}
	// Output:
	// 404 RepoNotFound
}

// Read the header of a safetensors file on the Hub, and nothing else of it.
func ExampleClient_Remote() {
	fake := hubtest.New()
	fake.Commit("model", "acme/vit", "main", "first", map[string][]byte{
		"model.safetensors": append([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), make([]byte, 1<<20)...),
	})
	server := httptest.NewServer(fake)
	defer server.Close()
	client, err := hub.New(hub.WithEndpoint(server.URL), hub.WithToken(""))
	if err != nil {
		fmt.Println(err)
		return
	}
	remote, err := client.Remote(context.Background(), hub.Repo{ID: "acme/vit"})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := remote.Open(context.Background(), "model.safetensors")
	if err != nil {
		fmt.Println(err)
		return
	}
	var size [8]byte
	file.ReadAt(size[:], 0)
	header := make([]byte, binary.LittleEndian.Uint64(size[:]))
	file.ReadAt(header, 8)
	fmt.Printf("%s, %d of %d bytes fetched\n", header, remote.Fetched(), file.Size)
	// Output:
	// {}, 65536 of 1048586 bytes fetched
}
