// Command buildkit builds an image from a Dockerfile by BuildKit's own daemon and client in one process, pushes it, and keeps its build cache in a
// registry. It has all of buildkitd that speaks with registries, and takes its configuration file; without the caches of clouds it compiles in half
// of the time.
//
//	buildkit -root DIRECTORY -config buildkitd.toml -runc PROGRAM -push IMAGE -cache-to IMAGE -cache-from IMAGE CONTEXT
//	buildkit -root DIRECTORY -config buildkitd.toml -runc PROGRAM -layout DIRECTORY CONTEXT
//
// It prints each step of the Dockerfile, after "cached: " or "done: ". Credentials are those of DOCKER_CONFIG.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/cache/remotecache"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/network/netproviders"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/runc"
	"github.com/tonistiigi/fsutil"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
)

type options struct {
	root, config, runc               string
	push, layout, cacheTo, cacheFrom string
	context                          string
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", "", "the directory of the daemon")
	flag.StringVar(&o.config, "config", "", "buildkitd.toml")
	flag.StringVar(&o.runc, "runc", "", "the program runc")
	flag.StringVar(&o.push, "push", "", "the name under which the image is pushed")
	flag.StringVar(&o.layout, "layout", "", "the directory into which the image is written instead, as an OCI layout")
	flag.StringVar(&o.cacheTo, "cache-to", "", "the image that receives the build cache")
	flag.StringVar(&o.cacheFrom, "cache-from", "", "an image with a build cache")
	flag.Parse()
	o.context = flag.Arg(0)
	if err := command(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "buildkit:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, o options) error {
	controller, err := newController(ctx, o)
	if err != nil {
		return err
	}
	defer controller.Close()
	socket := filepath.Join(o.root, "buildkitd.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	controller.Register(server)
	go server.Serve(listener)
	defer server.Stop()
	c, err := client.New(ctx, "unix://"+socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return build(ctx, c, o)
}

func newController(ctx context.Context, o options) (*control.Controller, error) {
	cfg, err := config.LoadFile(o.config)
	if err != nil {
		return nil, err
	}
	hosts := resolver.NewRegistryConfig(cfg.Registries)
	if err := os.MkdirAll(o.root, 0o700); err != nil {
		return nil, err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	w, err := newWorker(ctx, o, hosts)
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(o.root, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := boltutil.Open(filepath.Join(o.root, "history.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: workers,
		Frontends:        map[string]frontend.Frontend{"dockerfile.v0": forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)},
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(sessions, hosts),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(sessions, w.ContentStore(), hosts),
		},
		CacheManager:   solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(workers)),
		MeterProvider:  noop.NewMeterProvider(),
		HistoryDB:      history,
		CacheStore:     cache,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   ctx.Done(),
	})
}

func newWorker(ctx context.Context, o options, hosts docker.RegistryHosts) (*base.Worker, error) {
	factory := runc.SnapshotterFactory{
		Name: "native",
		New:  func(root string) (snapshots.Snapshotter, error) { return native.NewSnapshotter(root) },
	}
	network := netproviders.Opt{Mode: "host"}
	opt, err := runc.NewWorkerOpt(o.root, factory, false, oci.ProcessSandbox, nil, nil, network, nil, o.runc, "", false, nil, "", "", nil)
	if err != nil {
		return nil, err
	}
	opt.RegistryHosts = hosts
	return base.NewWorker(ctx, opt)
}

func build(ctx context.Context, c *client.Client, o options) error {
	files, err := fsutil.NewFS(o.context)
	if err != nil {
		return err
	}
	credentials := dockerconfig.LoadDefaultConfigFile(os.Stderr)
	provider := authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(credentials)})
	solve := client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{}, // the client adds the imported caches
		LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
		Session:       []session.Attachable{provider},
		Exports:       []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{"name": o.push, "push": "true"}}},
	}
	if o.layout != "" {
		solve.Exports = []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{"tar": "false"}, OutputDir: o.layout}}
	}
	if o.cacheTo != "" {
		solve.CacheExports = []client.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": o.cacheTo, "mode": "max"}}}
	}
	if o.cacheFrom != "" {
		solve.CacheImports = []client.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": o.cacheFrom}}}
	}
	progress := make(chan *client.SolveStatus)
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		printSteps(progress)
	}()
	_, err = c.Solve(ctx, nil, solve, progress)
	<-printed
	return err
}

// printSteps prints the steps of the Dockerfile when they are completed.
func printSteps(progress <-chan *client.SolveStatus) {
	seen := map[string]bool{}
	for status := range progress {
		for _, vertex := range status.Vertexes {
			id := vertex.Digest.String()
			if vertex.Completed == nil || seen[id] || !strings.HasPrefix(vertex.Name, "[") || strings.HasPrefix(vertex.Name, "[internal]") {
				continue
			}
			seen[id] = true
			how := "done"
			if vertex.Cached {
				how = "cached"
			}
			fmt.Printf("%s: %s\n", how, vertex.Name)
		}
	}
}
