package peat

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// FleetPlatform is the machine of one agent, read from its document in platforms: of an agent with a link, of a watched
// agent, or of a plain put. Absent fields are empty.
type FleetPlatform struct {
	ID             string            `json:"-"`
	AgentID        string            `json:"agent_id"`
	Type           string            `json:"platform_type"`
	Name           string            `json:"name"`
	Group          string            `json:"group"`
	Version        string            `json:"version"`
	Architecture   string            `json:"architecture"`
	Classification string            `json:"classification"`
	RunMode        string            `json:"run_mode"`
	Labels         map[string]string `json:"labels"`
	Capabilities   []string          `json:"capabilities"`
	Routes         []string          `json:"routes"`

	// Liveness is this node's view of the agent, Via the node that reported it, and Age the age of the report.
	Liveness Liveness      `json:"-"`
	Via      string        `json:"-"`
	Age      time.Duration `json:"-"`

	// Document is the whole document.
	Document json.RawMessage `json:"-"`
}

// FleetDeployment is a workload of an agent, read from its document in deployments.
type FleetDeployment struct {
	ID                string            `json:"-"`
	AgentID           string            `json:"agent_id"`
	Package           string            `json:"package"`
	Version           string            `json:"version"`
	Status            string            `json:"status"`
	Flavor            string            `json:"flavor"`
	NamespaceOverride string            `json:"namespace_override"`
	Annotations       map[string]string `json:"annotations"`
	Labels            map[string]string `json:"labels"`
	Document          json.RawMessage   `json:"-"`
}

// FleetPlatforms returns the machines of the fleet that this node knows, sorted by id.
func (c *Client) FleetPlatforms(ctx context.Context) ([]FleetPlatform, error) {
	documents, err := c.snapshot(ctx, "platforms")
	if err != nil {
		return nil, err
	}
	typed, err := c.Platforms(ctx)
	if err != nil {
		return nil, err
	}
	liveness := make(map[string]*Platform, len(typed))
	for _, platform := range typed {
		liveness[platform.Id] = platform
	}
	platforms := make([]FleetPlatform, 0, len(documents))
	for _, document := range documents {
		platform := FleetPlatform{}
		readLoosely(document.JSON, &platform)
		platform.ID, platform.Document = document.ID, document.JSON
		if platform.AgentID == "" {
			platform.AgentID = document.ID
		}
		if known := liveness[document.ID]; known != nil {
			platform.Liveness, platform.Via = known.Liveness, known.Via
			platform.Age = time.Duration(known.AgeMs) * time.Millisecond
		}
		platforms = append(platforms, platform)
	}
	return platforms, nil
}

// FleetDeployments returns the deployments of the fleet that this node knows, sorted by id.
func (c *Client) FleetDeployments(ctx context.Context) ([]FleetDeployment, error) {
	documents, err := c.snapshot(ctx, "deployments")
	if err != nil {
		return nil, err
	}
	deployments := make([]FleetDeployment, 0, len(documents))
	for _, document := range documents {
		deployment := FleetDeployment{}
		readLoosely(document.JSON, &deployment)
		deployment.ID, deployment.Document = document.ID, document.JSON
		agent, name, _ := strings.Cut(document.ID, ":")
		if deployment.AgentID == "" {
			deployment.AgentID = agent
		}
		if deployment.Package == "" {
			deployment.Package = name
		}
		deployments = append(deployments, deployment)
	}
	return deployments, nil
}

// readLoosely fills the fields that have the expected JSON type and accepts a number as text, since enums may be numbers: one
// malformed document must not hide the rest of a fleet.
func readLoosely(document json.RawMessage, into any) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(document, &fields) != nil {
		return
	}
	for name, value := range fields {
		if fill(into, name, value) != nil {
			// A field of another type stays empty.
			_ = fill(into, name, json.RawMessage(strconv.Quote(string(value))))
		}
	}
}

func fill(into any, name string, value json.RawMessage) error {
	field, err := json.Marshal(map[string]json.RawMessage{name: value})
	if err != nil {
		return err
	}
	return json.Unmarshal(field, into)
}

// snapshot returns all documents of a collection, sorted by id.
func (c *Client) snapshot(ctx context.Context, collection string) ([]*Change, error) {
	held := make(map[string]*Change)
	s := &subscription{collections: []string{collection}, snapshot: true}
	err := c.follow(ctx, s, new(backoff), func(change *Change, _ error) bool {
		if change.Type == ChangeUpsert {
			held[change.ID] = change
		}
		return change.Type != ChangeSnapshotEnd
	})
	return sorted(held), err
}
