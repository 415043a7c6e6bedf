package peat

import (
	"context"
	"encoding/json"

	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// Version is an opaque name of one version of a document.
type Version []byte

// Document is a document as the node stores it.
type Document struct {
	JSON    json.RawMessage
	Version Version
	// Durable reports whether this version is on disk.
	Durable bool
}

// Decode unmarshals the document's JSON.
func (d *Document) Decode(into any) error { return json.Unmarshal(d.JSON, into) }

// Written is the version that a put or patch made.
type Written struct {
	Version Version
	Durable bool
}

func collect(options []WriteOption) writeOptions {
	var collected writeOptions
	for _, option := range options {
		option.configureWrite(&collected)
	}
	return collected
}

// toJSON returns a string, []byte or json.RawMessage unchanged and marshals everything else.
func toJSON(value any) (string, error) {
	switch value := value.(type) {
	case json.RawMessage:
		return string(value), nil
	case []byte:
		return string(value), nil
	case string:
		return value, nil
	}
	bytes, err := json.Marshal(value)
	if err != nil {
		return "", invalid("not JSON: %v", err)
	}
	return string(bytes), nil
}

// Put writes a document: a string, []byte or json.RawMessage that is a JSON object, or a value that marshals to one.
func (c *Client) Put(ctx context.Context, collection, id string, document any, options ...WriteOption) (Written, error) {
	text, err := toJSON(document)
	if err != nil {
		return Written{}, of(methodPutDocument, err)
	}
	o := collect(options)
	request := &pb.PutDocumentRequest{Collection: collection, DocId: id, JsonData: text,
		Base: o.base, WaitPeers: o.waitPeers, Durable: o.durable}
	response := new(pb.PutDocumentResponse)
	err = c.call(ctx, methodPutDocument, request, response)
	return Written{response.Version, response.Durable}, err
}

// Patch changes fields of a document by a JSON merge patch (RFC 7396): null removes a field.
func (c *Client) Patch(ctx context.Context, collection, id string, patch any, options ...WriteOption) (Written, error) {
	text, err := toJSON(patch)
	if err != nil {
		return Written{}, of(methodPatchDocument, err)
	}
	o := collect(options)
	request := &pb.PatchDocumentRequest{Collection: collection, DocId: id, PatchJson: text,
		Base: o.base, WaitPeers: o.waitPeers, Durable: o.durable}
	response := new(pb.PatchDocumentResponse)
	err = c.call(ctx, methodPatchDocument, request, response)
	return Written{response.Version, response.Durable}, err
}

// Get returns a document, or a NotFound error.
func (c *Client) Get(ctx context.Context, collection, id string) (*Document, error) {
	response := new(pb.GetDocumentResponse)
	request := &pb.GetDocumentRequest{Collection: collection, DocId: id}
	if err := c.call(ctx, methodGetDocument, request, response); err != nil {
		return nil, err
	}
	if response.JsonData == nil {
		return nil, of(methodGetDocument, &Error{Code: NotFound, Message: "there is no " + collection + "/" + id})
	}
	return &Document{JSON: json.RawMessage(*response.JsonData), Version: response.Version, Durable: response.Durable}, nil
}

// Delete deletes a document, if it exists.
func (c *Client) Delete(ctx context.Context, collection, id string) error {
	request := &pb.DeleteDocumentRequest{Collection: collection, DocId: id}
	return c.call(ctx, methodDeleteDocument, request, new(pb.DeleteDocumentResponse))
}

// List returns the ids of a collection's documents.
func (c *Client) List(ctx context.Context, collection string) ([]string, error) {
	response := new(pb.ListDocumentsResponse)
	err := c.call(ctx, methodListDocuments, &pb.ListDocumentsRequest{Collection: collection}, response)
	return response.DocIds, err
}

// Compact drops the history of a merged document and returns the new version and the number of bytes dropped. Edits that the
// compaction had not seen are applied to the new version.
func (c *Client) Compact(ctx context.Context, collection, id string) (Version, uint64, error) {
	response := new(pb.CompactDocumentResponse)
	request := &pb.CompactDocumentRequest{Collection: collection, DocId: id}
	err := c.call(ctx, methodCompactDocument, request, response)
	return response.Version, response.DroppedBytes, err
}
