package containers_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	bridge "github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
	"go.yaml.in/yaml/v3"

	"github.com/shipledger/shipledger/integration/separate"
)

// wanted says that this suite is to run: its images were built of this checkout.
const wanted = "SHIPLEDGER_CONTAINERS"

// images name what to start instead of what a compose file says, by service.
var images = map[string]string{"nats": "TC_NATS_IMAGE", "clickhouse": "TC_CLICKHOUSE_IMAGE"}

// composeFile is as much of a compose file as ours say.
type composeFile struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`

	Service     any `yaml:"x-service"` // what several services have in common
	Environment any `yaml:"x-environment"`
}

// secret is what a file leaves to its user, such as ${CLICKHOUSE_PASSWORD:?}.
var secret = regexp.MustCompile(`\$\{[A-Z_]+:\?\}`)

type service struct {
	Image       string            `yaml:"image"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	Tmpfs       []string          `yaml:"tmpfs"`
	Volumes     []string          `yaml:"volumes"`
	Ports       []string          `yaml:"ports"`
	DependsOn   []string          `yaml:"depends_on"`
	Restart     string            `yaml:"restart"`
	Grace       string            `yaml:"stop_grace_period"`
}

// system is what runs of a compose file.
type system struct {
	t        *testing.T
	docker   *testcontainers.DockerClient
	net      *testcontainers.DockerNetwork
	parts    map[string]testcontainers.Container
	order    []string // each part after those that it depends on
	frontier string   // the service that people talk to
}

// start starts a system as a file of deploy/compose says, on ports and volumes of
// its own, and waits until it is healthy. front is the service that people talk to.
func start(t *testing.T, file, front string) *system {
	t.Helper()
	if os.Getenv(wanted) == "" {
		t.Skip("SKIPPED: make integration-containers builds the images and runs this")
	}
	f := readCompose(t, file)
	docker, err := testcontainers.NewDockerClientWithOpts(t.Context())
	if err != nil {
		t.Fatalf("no container engine answers (deploy/images/engine gives one): %v", err)
	}
	for name, s := range f.Services {
		if image := os.Getenv(images[name]); image != "" {
			s.Image = image
			f.Services[name] = s
		}
		if _, err := docker.ImageInspect(t.Context(), s.Image); err != nil {
			t.Fatalf("image %s is not there (deploy/images/build makes it): %v", s.Image, err)
		}
	}
	made, err := bridge.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	testcontainers.CleanupNetwork(t, made)
	sys := &system{t: t, docker: docker, net: made, parts: map[string]testcontainers.Container{}, frontier: front}
	volumes := map[string]string{}
	for name := range f.Volumes {
		volume := "shipledger-test-" + name + "-" + uuid.NewString()
		volumes[name] = volume
		t.Cleanup(func() { // after the containers that share it
			if _, err := docker.VolumeRemove(context.WithoutCancel(t.Context()), volume, client.VolumeRemoveOptions{Force: true}); err != nil {
				t.Errorf("remove the volume %s: %v", name, err)
			}
		})
	}
	sys.order = f.order(t)
	for _, name := range sys.order {
		sys.run(name, f.Services[name], volumes)
	}
	sys.healthy()
	return sys
}

func readCompose(t *testing.T, file string) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "compose", file))
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]string{}
	text = secret.ReplaceAllFunc(text, func(name []byte) []byte {
		if drawn[string(name)] == "" {
			drawn[string(name)] = rand.Text()
		}
		return []byte(drawn[string(name)])
	})
	var f composeFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true) // what this suite would not do, a file may not say
	if err := d.Decode(&f); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return f
}

// order gives the services so that each comes after those that it depends on.
func (f composeFile) order(t *testing.T) []string {
	t.Helper()
	var out []string
	for len(out) < len(f.Services) {
		before := len(out)
		for _, name := range slices.Sorted(maps.Keys(f.Services)) {
			missing := slices.ContainsFunc(f.Services[name].DependsOn, func(d string) bool { return !slices.Contains(out, d) })
			if !missing && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
		if len(out) == before {
			t.Fatalf("after %v, every service depends on another", out)
		}
	}
	return out
}

// run starts one service.
func (s *system) run(name string, of service, volumes map[string]string) {
	s.t.Helper()
	var mounts testcontainers.ContainerMounts
	for _, v := range of.Volumes {
		volume, path, _ := strings.Cut(v, ":")
		mounts = append(mounts, testcontainers.VolumeMount(volumes[volume], testcontainers.ContainerMountTarget(path)))
	}
	env := map[string]string{"SHIPLEDGER_RATE_LIMIT": "off"} // a reporter here reports for a whole company
	maps.Copy(env, of.Environment)
	var exposed []string
	bindings := network.PortMap{}
	for _, p := range of.Ports {
		port := p[strings.LastIndex(p, ":")+1:] + "/tcp"
		exposed = append(exposed, port)
		bindings[network.MustParsePort(port)] = []network.PortBinding{s.hostPort()}
	}
	c, err := testcontainers.GenericContainer(s.t.Context(), testcontainers.GenericContainerRequest{
		ContainerRequest: testcontainers.ContainerRequest{
			Image: of.Image, Entrypoint: of.Entrypoint, Cmd: of.Command, Env: env, ExposedPorts: exposed, Mounts: mounts,
			Networks: []string{s.net.Name}, NetworkAliases: map[string][]string{s.net.Name: {name}},
			HostConfigModifier: func(h *container.HostConfig) {
				h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(of.Restart)}
				h.ReadonlyRootfs, h.CapDrop, h.SecurityOpt = of.ReadOnly, of.CapDrop, of.SecurityOpt
				h.Tmpfs = map[string]string{}
				for _, path := range of.Tmpfs {
					h.Tmpfs[path] = ""
				}
				h.PortBindings = bindings
			},
		},
		Started: true,
	})
	testcontainers.CleanupContainer(s.t, c)
	if err != nil {
		s.t.Fatalf("start %s: %v", name, err)
	}
	s.parts[name] = c
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("last words of %s:\n%s", name, s.log(name))
		}
	})
}

// hostPort is a free port of this machine. An engine that chooses takes one of
// those that outgoing connections are given too, and finds it in use now and then.
func (s *system) hostPort() network.PortBinding {
	s.t.Helper()
	addr, err := separate.FreeAddr()
	s.must("find a free port", err)
	at := netip.MustParseAddrPort(addr)
	return network.PortBinding{HostIP: at.Addr(), HostPort: strconv.Itoa(int(at.Port()))}
}

// log gives the end of what a part printed.
func (s *system) log(name string) string {
	out, err := s.parts[name].Logs(context.WithoutCancel(s.t.Context()))
	if err != nil {
		return err.Error()
	}
	defer out.Close()
	text, _ := io.ReadAll(out)
	return string(text[max(0, len(text)-4000):])
}

// url is where people talk to the system, or an error while that part is down.
func (s *system) url(ctx context.Context) (string, error) {
	port, err := s.parts[s.frontier].MappedPort(ctx, "8080/tcp")
	if err != nil { // it is down
		return "", err
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port.Num()), nil
}

// healthy waits until all parts are well.
func (s *system) healthy() {
	s.t.Helper()
	err := wait.ForHTTP("/health").WithPort("8080/tcp").WithStartupTimeout(5*time.Minute).WithStatusCodeMatcher(func(status int) bool { return status == 200 }).
		WithResponseMatcher(func(body io.Reader) bool {
			text, _ := io.ReadAll(body)
			return strings.Contains(string(text), `"status":"ok"`)
		}).WaitUntilReady(s.t.Context(), s.parts[s.frontier])
	if err != nil {
		s.t.Fatalf("the system does not become healthy: %v", err)
	}
}

// must fails the test where the engine does not do what it is told.
func (s *system) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *system) id(name string) string { return s.parts[name].GetContainerID() }

// kill ends a part without a word; back starts it again.
func (s *system) kill(name string) {
	s.t.Helper()
	_, err := s.docker.ContainerKill(s.t.Context(), s.id(name), client.ContainerKillOptions{Signal: "KILL"})
	s.must("kill "+name, err)
}

// Parts are started and stopped by a client that nobody else asks at the same time:
// testcontainers closes the idle connections of its own after each call, such as that
// for an address which a report in the background makes, and an answer without a body,
// as these have, may be lost to that.
func (s *system) back(name string) {
	s.t.Helper()
	_, err := s.docker.ContainerStart(s.t.Context(), s.id(name), client.ContainerStartOptions{})
	s.must("start "+name, err)
}

// stop ends a part in order, and gives how it ended.
func (s *system) stop(name string) int {
	s.t.Helper()
	patience := 60 // seconds
	_, err := s.docker.ContainerStop(s.t.Context(), s.id(name), client.ContainerStopOptions{Timeout: &patience})
	s.must("stop "+name, err)
	part, err := s.docker.ContainerInspect(s.t.Context(), s.id(name), client.ContainerInspectOptions{})
	s.must("ask for "+name, err)
	return part.Container.State.ExitCode
}

// pause holds a part still; resume lets it go on.
func (s *system) pause(name string) {
	s.t.Helper()
	_, err := s.docker.ContainerPause(s.t.Context(), s.id(name), client.ContainerPauseOptions{})
	s.must("pause "+name, err)
}

func (s *system) resume(name string) {
	s.t.Helper()
	_, err := s.docker.ContainerUnpause(s.t.Context(), s.id(name), client.ContainerUnpauseOptions{})
	s.must("resume "+name, err)
}

// cut takes a part off the network; join puts it back.
func (s *system) cut(name string) {
	s.t.Helper()
	_, err := s.docker.NetworkDisconnect(s.t.Context(), s.net.ID, client.NetworkDisconnectOptions{Container: s.id(name), Force: true})
	s.must("cut off "+name, err)
}

func (s *system) join(name string) {
	s.t.Helper()
	_, err := s.docker.NetworkConnect(s.t.Context(), s.net.ID, client.NetworkConnectOptions{
		Container: s.id(name), EndpointConfig: &network.EndpointSettings{Aliases: []string{name}},
	})
	s.must("join "+name, err)
}
