// Command docker-push pushes an image with the client of Docker's engine (github.com/docker/distribution, as moby's distribution/push_v2.go
// uses it).
//
//	docker-push -url URL -user USER:PASSWORD -from REPOSITORY LAYOUT REPOSITORY TAG
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/distribution"
	_ "github.com/docker/distribution/manifest/ocischema"
	_ "github.com/docker/distribution/manifest/schema2"
	"github.com/docker/distribution/reference"
	"github.com/docker/distribution/registry/client"
	"github.com/opencontainers/go-digest"
)

func main() {
	if err := command(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "docker-push:", err)
		os.Exit(1)
	}
}

type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

type pusher struct {
	layout     string
	repository distribution.Repository
	from       reference.Named // nil: no blob is mounted
}

func command(ctx context.Context) error {
	url := flag.String("url", "", "of the registry")
	user := flag.String("user", "", "USER:PASSWORD")
	from := flag.String("from", "", "a repository that may have the blobs already")
	flag.Parse()
	named, err := reference.WithName(flag.Arg(1))
	if err != nil {
		return err
	}
	repository, err := client.NewRepository(named, *url, login{*user})
	if err != nil {
		return err
	}
	p := pusher{layout: flag.Arg(0), repository: repository}
	if *from != "" {
		if p.from, err = reference.WithName(*from); err != nil {
			return err
		}
	}
	return p.push(ctx, flag.Arg(2))
}

func (p pusher) push(ctx context.Context, tag string) error {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	file, err := os.ReadFile(filepath.Join(p.layout, "index.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(file, &index); err != nil {
		return err
	}
	root := index.Manifests[0]
	bytes, err := os.ReadFile(p.path(root.Digest))
	if err != nil {
		return err
	}
	manifest, _, err := distribution.UnmarshalManifest(root.MediaType, bytes)
	if err != nil {
		return err
	}
	for _, blob := range manifest.References() {
		if err := p.pushBlob(ctx, blob); err != nil {
			return fmt.Errorf("%s: %w", blob.Digest, err)
		}
	}
	manifests, err := p.repository.Manifests(ctx)
	if err != nil {
		return err
	}
	pushed, err := manifests.Put(ctx, manifest, distribution.WithTag(tag))
	if err == nil && pushed != root.Digest {
		err = fmt.Errorf("the registry says that the manifest is %s", pushed)
	}
	return err
}

func (p pusher) pushBlob(ctx context.Context, blob distribution.Descriptor) error {
	blobs := p.repository.Blobs(ctx)
	if _, err := blobs.Stat(ctx, blob.Digest); err == nil {
		fmt.Println("there:", blob.Digest)
		return nil
	} else if !errors.Is(err, distribution.ErrBlobUnknown) {
		return err
	}
	var options []distribution.BlobCreateOption
	if p.from != nil {
		source, err := reference.WithDigest(p.from, blob.Digest)
		if err != nil {
			return err
		}
		options = append(options, client.WithMountFrom(source))
	}
	upload, err := blobs.Create(ctx, options...)
	var mounted distribution.ErrBlobMounted
	if errors.As(err, &mounted) {
		fmt.Println("mounted:", blob.Digest)
		return nil
	}
	if err != nil {
		return err
	}
	defer upload.Close()
	file, err := os.Open(p.path(blob.Digest))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := upload.ReadFrom(file); err != nil {
		return err
	}
	_, err = upload.Commit(ctx, distribution.Descriptor{Digest: blob.Digest})
	fmt.Println("pushed:", blob.Digest)
	return err
}

func (p pusher) path(d digest.Digest) string {
	return filepath.Join(p.layout, "blobs", d.Algorithm().String(), d.Encoded())
}

// login sends the credentials with each request.
type login struct{ credentials string }

func (l login) RoundTrip(request *http.Request) (*http.Response, error) {
	if user, password, ok := strings.Cut(l.credentials, ":"); ok {
		request = request.Clone(request.Context())
		request.SetBasicAuth(user, password)
	}
	return http.DefaultTransport.RoundTrip(request)
}
