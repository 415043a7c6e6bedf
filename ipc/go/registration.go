package peat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
)

const (
	platformsCollection   = "platforms"
	deploymentsCollection = "deployments"
	// writeAttempts limits the attempts to write a document that other writers change at the same time.
	writeAttempts = 5
)

// putRegistration writes the documents that a registration on a stream makes: platforms/{id}, and deployments/{id}:{name} for
// each workload. It removes the documents of other workloads.
func (c *Client) putRegistration(ctx context.Context, r *Registration) error {
	if err := c.setFields(ctx, platformsCollection, r.ID, r.fields()); err != nil {
		return err
	}
	running := make(map[string]bool, len(r.Workloads))
	for _, workload := range r.Workloads {
		id := r.ID + ":" + workload.Name
		running[id] = true
		if err := c.setFields(ctx, deploymentsCollection, id, workload.fields(r.ID)); err != nil {
			return err
		}
	}
	deployed, err := c.List(ctx, deploymentsCollection)
	if err != nil {
		return err
	}
	for _, id := range deployed {
		if strings.HasPrefix(id, r.ID+":") && !running[id] {
			if err := c.deleteOwn(ctx, r.ID, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteOwn deletes a deployment, unless it belongs to another agent: its id may begin with this agent's and a colon.
func (c *Client) deleteOwn(ctx context.Context, agent, id string) error {
	held, err := c.Get(ctx, deploymentsCollection, id)
	if errors.Is(err, NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var document struct {
		AgentID *string `json:"agent_id"`
	}
	if json.Unmarshal(held.JSON, &document) == nil && document.AgentID != nil && *document.AgentID != agent {
		return nil
	}
	return c.Delete(ctx, deploymentsCollection, id)
}

// setFields sets keys of a document, removes those that are nil here and keeps all others.
func (c *Client) setFields(ctx context.Context, collection, id string, fields map[string]any) error {
	var err error
	for range writeAttempts {
		document := make(map[string]any)
		var options []WriteOption
		held, problem := c.Get(ctx, collection, id)
		if problem == nil {
			decoder := json.NewDecoder(bytes.NewReader(held.JSON))
			decoder.UseNumber()
			if problem = decoder.Decode(&document); problem != nil {
				return problem
			}
			options = append(options, WithBase(held.Version))
		} else if !errors.Is(problem, NotFound) {
			return problem
		}
		for name, value := range fields {
			if value == nil {
				delete(document, name)
			} else {
				document[name] = value
			}
		}
		if _, err = c.Put(ctx, collection, id, document, options...); !errors.Is(err, Aborted) {
			return err
		}
	}
	return err
}

// fields returns the keys of the agent's document in platforms.
func (r *Registration) fields() map[string]any {
	fields := map[string]any{"agent_id": r.ID, "name": text(r.Name), "group": text(r.Group), "version": text(r.Version),
		"capabilities": list(r.Capabilities), "routes": list(r.Routes), "labels": labels(r.Labels), "capacity": nil}
	if r.Status != 0 {
		fields["status"] = r.Status.String()
	}
	if c := r.Capacity; c != nil {
		fields["capacity"] = map[string]any{"cpu_used": c.CPUUsed, "cpu_total": c.CPUTotal,
			"memory_used_bytes": c.MemoryUsedBytes, "memory_total_bytes": c.MemoryTotalBytes,
			"disk_used_bytes": c.DiskUsedBytes, "disk_total_bytes": c.DiskTotalBytes}
	}
	return fields
}

// fields returns the keys of the workload's document in deployments.
func (w *Workload) fields(agent string) map[string]any {
	return map[string]any{"agent_id": agent, "package": w.Name, "version": w.Version, "status": w.Status,
		"labels": labels(w.Labels)}
}

func text(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func list(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

func labels(labels map[string]string) any {
	if len(labels) == 0 {
		return nil
	}
	return labels
}
