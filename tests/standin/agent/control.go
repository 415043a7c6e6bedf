package agent

import (
	"encoding/json"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// change reads a value from the body and applies it.
func change[T any](w http.ResponseWriter, r *http.Request, apply func(T)) {
	var value T
	if err := json.NewDecoder(r.Body).Decode(&value); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	apply(value)
}

// changeMessage reads a message from the body's JSON and applies it.
func changeMessage[M proto.Message](w http.ResponseWriter, r *http.Request, message M, apply func(M)) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = protojson.Unmarshal(body, message)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	apply(message)
}
