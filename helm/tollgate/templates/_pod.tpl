{{/*
The pod of a node. Call with (dict "root" $ "component" "voter" "values" .Values.voters).
enableServiceLinks is off because the variables that Kubernetes makes of a Service named `tollgate` (TOLLGATE_PORT=tcp://…)
look like settings, and a node refuses settings that it does not know.
*/}}
{{- define "tollgate.pod" -}}
{{- $root := .root -}}{{- $values := .values -}}
metadata:
  # No version: a chart that changes nothing of the nodes restarts none.
  labels:
    {{- include "tollgate.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with $root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "tollgate.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $root.Values.drain.delaySeconds $root.Values.drain.requestSeconds 15 }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- range $key, $how := dict "topology.kubernetes.io/zone" $values.spread.zone "kubernetes.io/hostname" $values.spread.host }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $how }}
      labelSelector:
        matchLabels:
          {{- include "tollgate.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.component }}
    {{- end }}
  containers:
    - name: tollgate
      image: {{ include "tollgate.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [serve]
      env:
        - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
        - { name: TOLLGATE_NODE_NAME, value: $(POD_NAME) }
        - { name: TOLLGATE_DATA_DIR, value: /var/lib/tollgate/node }
        - { name: TOLLGATE_DATA_ADDR, value: "0.0.0.0:8080" }
        - { name: TOLLGATE_ADMIN_ADDR, value: "0.0.0.0:8081" }
        - { name: TOLLGATE_PEER_ADDR, value: "0.0.0.0:8082" }
        - { name: TOLLGATE_PEER_ADVERTISE, value: {{ include "tollgate.advertise" $root | quote }} }
        - { name: TOLLGATE_JOIN, value: {{ include "tollgate.join" $root | quote }} }
        - { name: TOLLGATE_VOTERS, value: {{ include "tollgate.voters" $root | quote }} }
        {{- with $root.Values.cluster.region }}
        - { name: TOLLGATE_REGION, value: {{ . | quote }} }
        {{- end }}
        - { name: TOLLGATE_DRAIN_DELAY_SECONDS, value: {{ $root.Values.drain.delaySeconds | quote }} }
        - { name: TOLLGATE_DRAIN_SECONDS, value: {{ $root.Values.drain.requestSeconds | quote }} }
        {{- if $root.Values.admin.existingSecret }}
        - { name: TOLLGATE_ADMIN_TOKEN_FILE, value: /etc/tollgate/admin/token }
        {{- end }}
        {{- if $root.Values.signIn.existingSecret }}
        - { name: TOLLGATE_OIDC_CLIENT_SECRET_FILE, value: /etc/tollgate/sign-in/client-secret }
        {{- if $root.Values.signIn.caKey }}
        - { name: TOLLGATE_OIDC_CA, value: /etc/tollgate/sign-in/ca.crt }
        {{- end }}
        {{- end }}
        {{- with $root.Values.otlp }}
        {{- if and .existingSecret (not (or .headersKey .caKey)) }}{{ fail "otlp.existingSecret: say in otlp.headersKey or otlp.caKey what to read of it" }}{{ end }}
        {{- if and .existingSecret .headersKey }}
        - { name: TOLLGATE_OTLP_HEADERS_FILE, value: /etc/tollgate/otlp/headers }
        {{- end }}
        {{- if and .existingSecret .caKey }}
        - { name: TOLLGATE_OTLP_CA, value: /etc/tollgate/otlp/ca.crt }
        {{- end }}
        {{- end }}
        {{- with include "tollgate.tls.env" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- range $key, $value := $root.Values.settings }}
        - name: TOLLGATE_{{ upper $key }}
          {{- /* Numbers come as floats: 1e+06 is no setting, and 0.25 is not 0. */}}
          value: {{ if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ printf "%.0f" $value | quote }}{{ else }}{{ toString $value | quote }}{{ end }}
        {{- end }}
        {{- with $root.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - { name: data, containerPort: 8080 }
        - { name: admin, containerPort: 8081 }
        - { name: peers, containerPort: 8082 }
      {{- $scheme := include "tollgate.adminScheme" $root }}
      {{- range $probe, $path := dict "startup" "/livez" "liveness" "/livez" "readiness" "/readyz" }}
      {{ $probe }}Probe:
        httpGet: { path: {{ $path }}, port: admin, scheme: {{ $scheme }} }
        {{- toYaml (index $root.Values.probes $probe) | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities: { drop: [ALL] }
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - { name: data, mountPath: /var/lib/tollgate }
        {{- with include "tollgate.secrets.mounts" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $root.Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- with include "tollgate.volumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "tollgate.volumes" -}}
{{- $root := .root -}}
{{- if eq .component "gateway" }}
- name: data
  emptyDir: { sizeLimit: {{ .values.storage.sizeLimit | quote }} }
{{- end }}
{{- include "tollgate.secrets.volumes" $root }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
