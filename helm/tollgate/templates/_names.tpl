{{/* Names and labels. What a StatefulSet or Service cannot change later (names, selectors) depends on the release alone. */}}

{{- define "tollgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters at most, so that every name made of it, a pod's ordinal with it, stays below 63. */}}
{{- define "tollgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "tollgate.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tollgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tollgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Peers: the headless Service of all nodes, voters and gateways. */}}
{{- define "tollgate.peers" -}}
{{ include "tollgate.fullname" . }}-peers
{{- end -}}

{{- define "tollgate.peerDomain" -}}
{{ include "tollgate.peers" . }}.{{ .Release.Namespace }}.svc.{{ .Values.cluster.domain }}
{{- end -}}

{{- define "tollgate.voters" -}}
{{- $replicas := int .Values.cluster.replicas -}}
{{- if .Values.cluster.voters -}}
{{- .Values.cluster.voters -}}
{{- else if .Values.cluster.join -}}
{{- fail "cluster.join is set: say in cluster.voters how many of the cluster's nodes vote (1, 3 or 5)" -}}
{{- else if ge $replicas 5 -}}5
{{- else if ge $replicas 3 -}}3
{{- else -}}1
{{- end -}}
{{- end -}}

{{/* The voters' addresses. A pod beyond them joins through them. */}}
{{- define "tollgate.join" -}}
{{- if .Values.cluster.join -}}
{{- join "," .Values.cluster.join -}}
{{- else -}}
{{- $voters := min (int (include "tollgate.voters" .)) (int .Values.cluster.replicas) -}}
{{- $names := list -}}
{{- range $ordinal := until (int $voters) -}}
{{- $names = append $names (printf "%s-%d.%s:8082" (include "tollgate.fullname" $) $ordinal (include "tollgate.peerDomain" $)) -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.advertise" -}}
{{- default (printf "$(POD_NAME).%s:8082" (include "tollgate.peerDomain" .)) .Values.cluster.advertise -}}
{{- end -}}

{{/* `helm test` has a token to make a key with, and the certificate that the data plane demands of clients. */}}
{{- define "tollgate.tested" -}}
{{- $data := .Values.tls.data -}}
{{- $demands := and $data.enabled $data.clientCaSecret (eq $data.clientAuth "required") -}}
{{- if and .Values.tests.enabled .Values.admin.existingSecret (or (not $demands) .Values.tests.clientSecret) -}}true{{- end -}}
{{- end -}}

{{- define "tollgate.hasGateways" -}}
{{- if or (gt (int .Values.gateways.replicas) 0) (ne .Values.gateways.autoscaling.kind "none") -}}true{{- end -}}
{{- end -}}
