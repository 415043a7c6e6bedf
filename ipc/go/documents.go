package peat

import (
	"context"
	"encoding/json"

	pb "peat.dev/peat/gen/sidecarpb"
)

// Version is an opaque name of one version of a document.
type Version []byte

// Document is a document as the node holds it.
type Document struct {
	JSON    json.RawMessage
	Version Version
	// Durable is false for a version that is not on disk yet.
	Durable bool
}

// Decode unmarshals the document's JSON.
func (d *Document) Decode(into any) error { return json.Unmarshal(d.JSON, into) }

// Written is what a put or patch came to.
type Written struct {
	Version Version
	Durable bool
}

type putOptions struct {
	base    Version
	peers   uint32
	durable bool
}

// PutOption changes what a put or patch means.
type PutOption func(*putOptions)

// Base is the version the writer saw. A merged document then takes only what differs from it; for a latest one that is not
// current any more the put fails with Aborted. Without a base a put replaces what the node holds.
func Base(version Version) PutOption { return func(o *putOptions) { o.base = version } }

// WaitPeers answers once so many peers hold this or a later version on disk. When the deadline passes first the write stands.
func WaitPeers(count uint32) PutOption { return func(o *putOptions) { o.peers = count } }

// Durable answers once the write is on disk, whatever the collection's kind.
func Durable() PutOption { return func(o *putOptions) { o.durable = true } }

func collect(options []PutOption) putOptions {
	var collected putOptions
	for _, option := range options {
		option(&collected)
	}
	return collected
}

// toJSON takes text that is JSON already as it is and marshals everything else.
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

// Put writes a document: a string, []byte or json.RawMessage that is a JSON object, or anything that marshals to one.
func (c *Client) Put(ctx context.Context, collection, id string, document any, options ...PutOption) (Written, error) {
	text, err := toJSON(document)
	if err != nil {
		return Written{}, of(methodPutDocument, err)
	}
	o := collect(options)
	request := &pb.PutDocumentRequest{Collection: collection, DocId: id, JsonData: text,
		Base: o.base, WaitPeers: o.peers, Durable: o.durable}
	response := new(pb.PutDocumentResponse)
	err = c.call(ctx, methodPutDocument, request, response)
	return Written{response.Version, response.Durable}, err
}

// Patch changes some fields of a document (RFC 7396: null removes).
func (c *Client) Patch(ctx context.Context, collection, id string, patch any, options ...PutOption) (Written, error) {
	text, err := toJSON(patch)
	if err != nil {
		return Written{}, of(methodPatchDocument, err)
	}
	o := collect(options)
	request := &pb.PatchDocumentRequest{Collection: collection, DocId: id, PatchJson: text,
		Base: o.base, WaitPeers: o.peers, Durable: o.durable}
	response := new(pb.PatchDocumentResponse)
	err = c.call(ctx, methodPatchDocument, request, response)
	return Written{response.Version, response.Durable}, err
}

// Get reads a document; one that does not exist is a NotFound error.
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

// Delete deletes a document, if there is one.
func (c *Client) Delete(ctx context.Context, collection, id string) error {
	request := &pb.DeleteDocumentRequest{Collection: collection, DocId: id}
	return c.call(ctx, methodDeleteDocument, request, new(pb.DeleteDocumentResponse))
}

// List gives the ids of a collection's documents.
func (c *Client) List(ctx context.Context, collection string) ([]string, error) {
	response := new(pb.ListDocumentsResponse)
	err := c.call(ctx, methodListDocuments, &pb.ListDocumentsRequest{Collection: collection}, response)
	return response.DocIds, err
}

// Compact drops a merged document's history, and says how many bytes that was. Edits made elsewhere meanwhile are lost.
func (c *Client) Compact(ctx context.Context, collection, id string) (Version, uint64, error) {
	response := new(pb.CompactDocumentResponse)
	request := &pb.CompactDocumentRequest{Collection: collection, DocId: id}
	err := c.call(ctx, methodCompactDocument, request, response)
	return response.Version, response.DroppedBytes, err
}
