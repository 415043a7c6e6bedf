package clients

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	"peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

type agent struct {
	t *testing.T
	*link[agentpb.AgentMessage, agentpb.NodeMessage]
}

func register(t *testing.T, c caller, id string, done ...*agentpb.CommandUpdate) agent {
	t.Helper()
	connected, err := attach[agentpb.AgentMessage, agentpb.NodeMessage](c)
	if err != nil {
		t.Fatal(err)
	}
	a := agent{t, connected}
	t.Cleanup(a.end)
	a.say(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Register{Register: &agentpb.Register{AgentId: id, Commands: done}}})
	a.hear(func(m *agentpb.NodeMessage) bool { return m.GetRegistered().GetNodeId() == "n1" })
	return a
}

func (a agent) say(message *agentpb.AgentMessage) {
	a.t.Helper()
	if err := a.send(message); err != nil {
		a.t.Fatal(err)
	}
}

func (a agent) hear(fits func(*agentpb.NodeMessage) bool) (heard *agentpb.NodeMessage) {
	a.t.Helper()
	err := until(a.next, func(message *agentpb.NodeMessage) bool {
		heard = message
		return fits(message)
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return heard
}

// An agent takes a command, is cut, comes back, and reports what it has done meanwhile.
func TestAnAgentIsCutAndReports(t *testing.T) {
	for index, c := range everyCaller(t) {
		if !c.duplex {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			id := fmt.Sprintf("agent%d", index)
			first := register(t, c, id)
			command := &sidecarpb.Command{Id: "for-" + id, TargetId: id, CommandType: "replay", PayloadJson: `{"n":1}`}
			_, err := call[sidecarpb.PutCommandRequest, sidecarpb.PutCommandResponse](ctx, c, "PutCommand", &sidecarpb.PutCommandRequest{Command: command})
			if err != nil {
				t.Fatal(err)
			}
			push := first.hear(func(m *agentpb.NodeMessage) bool { return m.GetCommandPush() != nil }).GetCommandPush()
			if push.GetCommand().GetId() != command.Id || push.GetCommand().GetPayloadJson() != command.PayloadJson {
				t.Fatalf("pushed: %v", push)
			}
			update := &agentpb.CommandUpdate{CommandId: command.Id, Stage: agentpb.CommandUpdate_STAGE_ACCEPTED}
			first.say(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_CommandUpdate{CommandUpdate: update}})
			ack := first.hear(func(m *agentpb.NodeMessage) bool { return m.GetUpdateAck() != nil }).GetUpdateAck()
			if ack.GetRefused() != "" {
				t.Fatalf("refused: %v", ack)
			}
			first.end()

			result := &agentpb.CommandUpdate{CommandId: command.Id, Stage: agentpb.CommandUpdate_STAGE_COMPLETED, ResultJson: `{"ok":true}`}
			second := register(t, c, id, result)
			second.hear(func(m *agentpb.NodeMessage) bool {
				return m.GetUpdateAck().GetStage() == agentpb.CommandUpdate_STAGE_COMPLETED
			})
			held, err := call[sidecarpb.GetCommandsRequest, sidecarpb.GetCommandsResponse](ctx, c, "GetCommands", &sidecarpb.GetCommandsRequest{Id: command.Id})
			if err != nil || len(held.GetCommands()) != 1 {
				t.Fatalf("%v, %v", held, err)
			}
			got := held.GetCommands()[0]
			if got.GetStatus() != sidecarpb.CommandStatus_COMMAND_STATUS_COMPLETED || got.GetResultJson() != result.ResultJson {
				t.Fatalf("reported: %v", got)
			}
		})
	}
}

func TestToolsFindServicesAndHealth(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn := grpcConn(t, true)
	health := grpc_health_v1.NewHealthClient(conn)
	for _, service := range []string{"", "peat.sidecar.v1.PeatSidecar"} {
		answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, answer, err)
		}
	}
	watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := watch.Recv(); err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watched: %v, %v", answer, err)
	}

	info, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		if err := info.Send(request); err != nil {
			t.Fatal(err)
		}
		answer, err := info.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	list := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	if services := list.GetListServicesResponse().GetService(); len(services) != 3 {
		t.Errorf("services: %v", services)
	}
	files := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "peat.agent.v1.AgentLink"}}).GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	file := new(descriptorpb.FileDescriptorProto)
	if err := proto.Unmarshal(files[0], file); err != nil || file.GetPackage() != "peat.agent.v1" {
		t.Errorf("%v, %v", file.GetPackage(), err)
	}
}
