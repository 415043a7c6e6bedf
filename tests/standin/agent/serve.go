package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"peat.dev/standin/gen/registryapi"
	"peat.dev/standin/gen/registryapi/registryapiconnect"
	"peat.dev/standin/gen/zarfapi"
	"peat.dev/standin/gen/zarfapi/zarfapiconnect"
)

// zarf and registry are the two services.
type (
	zarf     struct{ state *State }
	registry struct{ state *State }
)

func (z zarf) ListPackages(
	context.Context, *connect.Request[zarfapi.ListPackagesRequest],
) (*connect.Response[zarfapi.ListPackagesResponse], error) {
	return connect.NewResponse(z.state.listPackages()), nil
}

func (r registry) ListPulledPackages(
	context.Context, *connect.Request[registryapi.ListPulledPackagesRequest],
) (*connect.Response[registryapi.ListPulledPackagesResponse], error) {
	return connect.NewResponse(r.state.listPulled()), nil
}

// Handler is what watchers talk to.
func (s *State) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { respond(w, s.currentStatus()) })
	mux.Handle(zarfapiconnect.NewZarfAPIServiceHandler(zarf{s}))
	mux.Handle(registryapiconnect.NewRegistryServiceHandler(registry{s}))
	return s.faulty(mux)
}

// Speaking restricts the protocols that are spoken: any, grpc, grpc-proto, or grpc-alone.
func Speaking(protocol string, next http.Handler) (http.Handler, error) {
	allowed := map[string]func(string) bool{
		"any":        func(string) bool { return true },
		"grpc":       func(kind string) bool { return strings.HasPrefix(kind, "application/grpc") },
		"grpc-proto": isProto,
		"grpc-alone": isProto,
	}[protocol]
	if allowed == nil {
		return nil, fmt.Errorf("%q is none of any, grpc, grpc-proto, grpc-alone", protocol)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method == http.MethodPost || protocol == "grpc-alone") && !allowed(r.Header.Get("Content-Type")) {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

func isProto(kind string) bool {
	return kind == "application/grpc" || kind == "application/grpc+proto"
}

func respond(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(value)
}

// faulty answers as the fault of the moment says.
func (s *State) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch s.ask(r.URL.Path) {
		case Slow:
			drip(w, r, time.Second, []byte(" "))
		case Huge:
			drip(w, r, 0, []byte(`{"packages":[],"x":"`+string(make([]byte, 64<<10))))
		case Truncated:
			w.Header().Set("Content-Length", "1000")
			write(w, `{"packages":[{"name":"half`)
		case Lying:
			write(w, `{"packages":{"name":7},"registries":"none","version":[],"labels":3}`)
		case Silent:
			<-r.Context().Done()
		case Failing:
			http.Error(w, `{"code":"internal"}`, http.StatusInternalServerError)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func write(w http.ResponseWriter, text string) {
	// A client that has gone needs no answer.
	_, _ = w.Write([]byte(text))
}

// drip writes for as long as the client stays.
func drip(w http.ResponseWriter, r *http.Request, pause time.Duration, bytes []byte) {
	controller := http.NewResponseController(w)
	for r.Context().Err() == nil {
		if _, err := w.Write(bytes); err != nil || controller.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(pause):
		}
	}
}

// Control is what tests change the state by:
//
//	PUT    /status            a Status
//	PUT    /packages/{name}   a package in JSON
//	DELETE /packages/{name}
//	POST   /packages?count=N  N made-up packages instead of all
//	PUT    /pulled            a tag in JSON
//	PUT    /fault?mode=MODE
//	GET    /asked             how often each path was asked for
func (s *State) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /status", func(w http.ResponseWriter, r *http.Request) {
		change(w, r, func(status Status) { s.setStatus(status) })
	})
	mux.HandleFunc("PUT /packages/{name}", func(w http.ResponseWriter, r *http.Request) {
		changeMessage(w, r, &zarfapi.Package{}, func(p *zarfapi.Package) {
			p.Name = r.PathValue("name")
			s.put(p)
		})
	})
	mux.HandleFunc("DELETE /packages/{name}", func(_ http.ResponseWriter, r *http.Request) { s.remove(r.PathValue("name")) })
	mux.HandleFunc("POST /packages", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.Atoi(r.URL.Query().Get("count"))
		if err != nil || count < 0 {
			http.Error(w, "count must be a number", http.StatusBadRequest)
			return
		}
		s.Fill(count)
	})
	mux.HandleFunc("PUT /pulled", func(w http.ResponseWriter, r *http.Request) {
		changeMessage(w, r, &registryapi.Tag{}, s.setPulled)
	})
	mux.HandleFunc("PUT /fault", func(w http.ResponseWriter, r *http.Request) {
		if err := s.setFault(Fault(r.URL.Query().Get("mode"))); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /asked", func(w http.ResponseWriter, _ *http.Request) { respond(w, s.counts()) })
	return mux
}
