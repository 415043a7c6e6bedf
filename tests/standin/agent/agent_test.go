package agent

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"peat.dev/standin/gen/zarfapi"
	"peat.dev/standin/gen/zarfapi/zarfapiconnect"
)

func start(t *testing.T) (agent, control *httptest.Server) {
	state := NewState()
	agent, control = httptest.NewServer(state.Handler()), httptest.NewServer(state.Control())
	t.Cleanup(agent.CloseClientConnections)
	t.Cleanup(control.Close)
	return agent, control
}

func do(t *testing.T, method, url, body string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(text), err
}

const listPackages = "/zarfapi.v1.ZarfAPIService/ListPackages"

func TestWhatIsChangedOverControlIsListed(t *testing.T) {
	agent, control := start(t)
	change := func(method, path, body string) {
		t.Helper()
		if _, err := do(t, method, control.URL+path, body); err != nil {
			t.Fatal(err)
		}
	}
	change("PUT", "/packages/radar", `{"version":"1","status":"DEPLOY_PACKAGE_STATUS_DEPLOYED"}`)
	text, err := do(t, "POST", agent.URL+listPackages, "{}")
	if err != nil || !strings.Contains(text, `"radar"`) || !strings.Contains(text, `"DEPLOY_PACKAGE_STATUS_DEPLOYED"`) {
		t.Fatal(text, err)
	}
	change("DELETE", "/packages/radar", "")
	change("POST", "/packages?count=500", "")
	client := zarfapiconnect.NewZarfAPIServiceClient(http.DefaultClient, agent.URL)
	list, err := client.ListPackages(context.Background(), connect.NewRequest(&zarfapi.ListPackagesRequest{}))
	if err != nil || len(list.Msg.Packages) != 500 {
		t.Fatal(list, err)
	}
	change("PUT", "/pulled", `{"reference":"r","arch":"amd64","totalBytes":"9007199254740993"}`)
	text, err = do(t, "POST", agent.URL+"/registryapi.v1.RegistryService/ListPulledPackages", "{}")
	if err != nil || !strings.Contains(text, `"9007199254740993"`) {
		t.Fatal(text, err)
	}
	if text, err := do(t, "GET", agent.URL+"/status", ""); err != nil || !strings.Contains(text, `"k8sVersion"`) {
		t.Fatal(text, err)
	}
	if text, err := do(t, "GET", control.URL+"/asked", ""); err != nil || !strings.Contains(text, listPackages+`":2`) {
		t.Fatal(text, err)
	}
}

func TestFaultsGoWrongAsTheySay(t *testing.T) {
	agent, control := start(t)
	for _, fault := range faults {
		if _, err := do(t, "PUT", control.URL+"/fault?mode="+string(fault), ""); err != nil {
			t.Fatal(err)
		}
		text, err := do(t, "POST", agent.URL+listPackages, "{}")
		switch fault {
		case None, Lying:
			if err != nil {
				t.Error(fault, err)
			}
		case Huge:
			if len(text) != 1<<20 {
				t.Error(fault, len(text), err)
			}
		default:
			if err == nil {
				t.Error(fault, text)
			}
		}
	}
	if _, err := do(t, "PUT", control.URL+"/fault?mode=other", ""); err == nil {
		t.Error("a fault nobody knows")
	}
}
