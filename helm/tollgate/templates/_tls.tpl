{{/* Which listener has a certificate, in which Secret, and how the node is told. */}}

{{/* "tls": the listener (peers, admin, data) has one; empty: it has none. Call with (list $ "peers"). */}}
{{- define "tollgate.tls.on" -}}
{{- $root := index . 0 -}}{{- $listener := index . 1 -}}
{{- $tls := $root.Values.tls -}}
{{- if and (ne $tls.mode "insecure") (or (ne $listener "data") $tls.data.enabled) -}}tls{{- end -}}
{{- end -}}

{{- define "tollgate.tls.secret" -}}
{{- $root := index . 0 -}}{{- $listener := index . 1 -}}
{{- $own := index $root.Values.tls $listener -}}
{{- if eq $root.Values.tls.mode "certManager" -}}
{{- printf "%s-%s-tls" (include "tollgate.fullname" $root) $listener -}}
{{- else -}}
{{- required (printf "tls.mode is existingSecrets: name in tls.%s.existingSecret the Secret with tls.crt, tls.key and ca.crt" $listener) $own.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Environment of a node. */}}
{{- define "tollgate.tls.env" -}}
{{- $dir := "/etc/tollgate/tls" -}}
{{- if include "tollgate.tls.on" (list . "peers") }}
- { name: TOLLGATE_PEER_TLS_CERT, value: {{ $dir }}/peers/tls.crt }
- { name: TOLLGATE_PEER_TLS_KEY, value: {{ $dir }}/peers/tls.key }
- { name: TOLLGATE_PEER_TLS_CA, value: {{ $dir }}/peers/ca.crt }
{{- end }}
{{- if include "tollgate.tls.on" (list . "admin") }}
- { name: TOLLGATE_ADMIN_TLS_CERT, value: {{ $dir }}/admin/tls.crt }
- { name: TOLLGATE_ADMIN_TLS_KEY, value: {{ $dir }}/admin/tls.key }
{{- end }}
{{- if include "tollgate.tls.on" (list . "data") }}
- { name: TOLLGATE_DATA_TLS_CERT, value: {{ $dir }}/data/tls.crt }
- { name: TOLLGATE_DATA_TLS_KEY, value: {{ $dir }}/data/tls.key }
{{- if .Values.tls.data.clientCaSecret }}
- { name: TOLLGATE_DATA_TLS_CLIENT_CA, value: {{ $dir }}/clients/ca.crt }
{{- end }}
{{- end }}
{{- if eq .Values.tls.mode "insecure" }}
- { name: TOLLGATE_INSECURE, value: "true" }
{{- end }}
{{- end -}}

{{/* Whole directories: a file mounted by subPath would never change under a running pod. */}}
{{- define "tollgate.tls.mounts" -}}
{{- range $listener := list "peers" "admin" "data" }}
{{- if include "tollgate.tls.on" (list $ $listener) }}
- { name: tls-{{ $listener }}, mountPath: /etc/tollgate/tls/{{ $listener }}, readOnly: true }
{{- end }}
{{- end }}
{{- if and (include "tollgate.tls.on" (list . "data")) .Values.tls.data.clientCaSecret }}
- { name: tls-clients, mountPath: /etc/tollgate/tls/clients, readOnly: true }
{{- end }}
{{- end -}}

{{- define "tollgate.tls.volumes" -}}
{{- range $listener := list "peers" "admin" "data" }}
{{- if include "tollgate.tls.on" (list $ $listener) }}
- name: tls-{{ $listener }}
  secret: { secretName: {{ include "tollgate.tls.secret" (list $ $listener) }}, defaultMode: 0440 }
{{- end }}
{{- end }}
{{- if and (include "tollgate.tls.on" (list . "data")) .Values.tls.data.clientCaSecret }}
- name: tls-clients
  secret:
    secretName: {{ .Values.tls.data.clientCaSecret }}
    defaultMode: 0440
    items: [{ key: ca.crt, path: ca.crt }]
{{- end }}
{{- end -}}

{{- define "tollgate.adminScheme" -}}
{{- if include "tollgate.tls.on" (list . "admin") -}}HTTPS{{- else -}}HTTP{{- end -}}
{{- end -}}
