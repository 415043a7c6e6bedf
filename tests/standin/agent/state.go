// Package agent is an agent that knows nothing of peat-node: it answers questions about what it runs, over the Connect
// protocol, as the agents in the field do. Its state is changed from outside while it runs.
package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"peat.dev/standin/gen/registryapi"
	"peat.dev/standin/gen/zarfapi"
)

// Status is the answer to GET /status.
type Status struct {
	Version        string            `json:"version"`
	Architecture   string            `json:"architecture"`
	Classification string            `json:"classification"`
	K8sVersion     string            `json:"k8sVersion"`
	K8sNodeStatus  string            `json:"k8sNodeStatus"`
	ZarfVersion    string            `json:"zarfVersion"`
	RunMode        string            `json:"runMode"`
	SystemTime     string            `json:"systemTime"`
	Labels         map[string]string `json:"labels"`
}

// Fault is how answers go wrong.
type Fault string

const (
	None      Fault = "none"
	Slow      Fault = "slow"      // a head, then a byte a second
	Huge      Fault = "huge"      // a body without an end
	Truncated Fault = "truncated" // less than the head promised
	Lying     Fault = "lying"     // JSON of other types than it should have
	Silent    Fault = "silent"    // no answer at all
	Failing   Fault = "failing"   // 500
)

var faults = []Fault{None, Slow, Huge, Truncated, Lying, Silent, Failing}

// State is what the agent says. Any number of goroutines may use it.
type State struct {
	mu       sync.Mutex
	status   Status
	packages map[string]*zarfapi.Package
	pulled   map[string]*registryapi.Tag // by reference
	fault    Fault
	asked    map[string]int // how often, by path
}

// NewState is an agent that runs nothing.
func NewState() *State {
	return &State{packages: map[string]*zarfapi.Package{}, pulled: map[string]*registryapi.Tag{}, fault: None,
		asked: map[string]int{}, status: Status{Version: "1.0.0", Architecture: "amd64", Classification: "UNCLASSIFIED",
			K8sVersion: "v1.31.0", K8sNodeStatus: "Ready", ZarfVersion: "v0.42.0", RunMode: "production",
			SystemTime: "2026-01-01T00:00:00Z", Labels: map[string]string{"site": "north"}}}
}

func (s *State) put(p *zarfapi.Package) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packages[p.Name] = p
}

func (s *State) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.packages, name)
}

// Fill replaces the packages by count made-up ones.
func (s *State) Fill(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.packages)
	for n := range count {
		name := fmt.Sprintf("package-%03d", n)
		s.packages[name] = &zarfapi.Package{Name: name, Version: "1.0.0", Flavor: "upstream",
			Status:      zarfapi.DeployPackageStatus_DEPLOY_PACKAGE_STATUS_DEPLOYED,
			Annotations: map[string]string{"team": fmt.Sprint("t", n%7)}}
	}
}

func (s *State) setStatus(status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *State) setPulled(tag *registryapi.Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulled[tag.Reference] = tag
}

func (s *State) setFault(fault Fault) error {
	if !slices.Contains(faults, fault) {
		return fmt.Errorf("no fault %q; there are %v", fault, faults)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	return nil
}

// ask counts a question and gives the fault its answer is to have.
func (s *State) ask(path string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[path]++
	return s.fault
}

func (s *State) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.asked)
}

func (s *State) currentStatus() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *State) listPackages() *zarfapi.ListPackagesResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &zarfapi.ListPackagesResponse{Packages: values(s.packages)}
}

func (s *State) listPulled() *registryapi.ListPulledPackagesResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	pulled := &registryapi.PulledPackage{RepoName: "defense", PackageName: "radar", Tags: values(s.pulled)}
	return &registryapi.ListPulledPackagesResponse{Registries: []*registryapi.Registry{
		{Name: "hub", Host: "registry.example", Packages: []*registryapi.PulledPackage{pulled}}}}
}

// values are copies, so that the state may change while they are sent.
func values[K cmp.Ordered, M proto.Message](entries map[K]M) []M {
	copies := make([]M, 0, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		copies = append(copies, proto.Clone(entries[key]).(M))
	}
	return copies
}
